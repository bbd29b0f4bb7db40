# `format` rewrites the layout, `format-check` and `tidy` only look.
file(GLOB_RECURSE VMPOOL_SOURCES CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
    common/*.[ch] scheduler/*.[ch] controller/*.[ch] node-agent/*.[ch] poolctl/*.[ch]
    bench/*.[ch] tests/*.[ch])
find_program(CLANG_FORMAT clang-format)
find_program(RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(CLANG_FORMAT)
    add_custom_target(format WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
        COMMAND ${CLANG_FORMAT} -i ${VMPOOL_SOURCES})
    add_custom_target(format-check WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
        COMMAND ${CLANG_FORMAT} --dry-run -Werror ${VMPOOL_SOURCES})
endif()
if(RUN_CLANG_TIDY)
    add_custom_target(tidy WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
        COMMAND ${RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}
                "^${PROJECT_SOURCE_DIR}/(common|scheduler|controller|node-agent|poolctl|bench)/.*\\.c$")
endif()
