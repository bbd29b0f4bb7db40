# vmpool_protobuf(TARGET a.proto b.proto ...): a static library of the generated protobuf-c code,
# built in the build tree and never committed. Include the headers as "proto/a.pb-c.h".
find_program(PROTOC_C protoc-c REQUIRED)
function(vmpool_protobuf target)
    set(out ${CMAKE_BINARY_DIR}/generated)
    set(sources)
    file(MAKE_DIRECTORY ${out})
    foreach(proto ${ARGN})
        get_filename_component(name ${proto} NAME_WE)
        add_custom_command(
            OUTPUT ${out}/proto/${name}.pb-c.c ${out}/proto/${name}.pb-c.h
            COMMAND ${PROTOC_C} --c_out=${out} -I${PROJECT_SOURCE_DIR} proto/${name}.proto
            WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
            DEPENDS ${PROJECT_SOURCE_DIR}/proto/${name}.proto
            COMMENT "protobuf-c ${name}.proto")
        list(APPEND sources ${out}/proto/${name}.pb-c.c ${out}/proto/${name}.pb-c.h)
    endforeach()
    add_library(${target} STATIC ${sources})
    target_include_directories(${target} SYSTEM PUBLIC ${out})
    target_link_libraries(${target} PUBLIC PkgConfig::PROTOBUF_C)
endfunction()
