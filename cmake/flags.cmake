# Flags every target of the project is compiled with: link to vmpool_flags.
add_library(vmpool_flags INTERFACE)
target_compile_definitions(vmpool_flags INTERFACE _GNU_SOURCE VMPOOL_VERSION="${PROJECT_VERSION}")
target_include_directories(vmpool_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(vmpool_flags INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wundef -Wvla
    -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wpointer-arith
    -Wwrite-strings -Wimplicit-fallthrough -Wnull-dereference
    # protobuf-c's initialisers cast const away; clang looks into macros of system headers.
    $<$<C_COMPILER_ID:GNU>:-Wcast-qual>
    -fno-strict-aliasing -fno-common -fstack-protector-strong)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT VMPOOL_SANITIZE AND NOT VMPOOL_COVERAGE)
    target_compile_definitions(vmpool_flags INTERFACE _FORTIFY_SOURCE=2)
endif()
target_link_options(vmpool_flags INTERFACE -Wl,-z,relro,-z,now)
if(VMPOOL_WERROR)
    target_compile_options(vmpool_flags INTERFACE -Werror)
endif()
if(VMPOOL_SANITIZE)
    target_compile_options(vmpool_flags INTERFACE
        -fsanitize=${VMPOOL_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(vmpool_flags INTERFACE -fsanitize=${VMPOOL_SANITIZE})
endif()
if(VMPOOL_COVERAGE)
    target_compile_options(vmpool_flags INTERFACE --coverage)
    target_link_options(vmpool_flags INTERFACE --coverage)
endif()
if(VMPOOL_FUZZ)
    # Coverage feedback in everything a fuzzer links to.
    target_compile_options(vmpool_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
