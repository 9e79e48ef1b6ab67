# llama.cpp's own generator of tiny models, one of each architecture that it knows: of its source, against the libllama that
# Python runs. Internal functions of that are called, which it exports, so both must be of one version (llama_cpp.cmake checks).
#
# Of llama.cpp's `common` only what the generator calls is linked: the rest, and what that would call, is left out.
add_executable(generate_architectures EXCLUDE_FROM_ALL
    ${LLAMA_CPP_DIR}/tests/test-llama-archs.cpp
    ${LLAMA_CPP_DIR}/common/common.cpp
    ${LLAMA_CPP_DIR}/common/json.cpp
    ${LLAMA_CPP_DIR}/common/log.cpp)
target_include_directories(generate_architectures PRIVATE ${LLAMA_CPP_DIR}/common ${LLAMA_CPP_DIR}/src ${LLAMA_CPP_DIR}/vendor)
target_compile_options(generate_architectures PRIVATE -O1 -w -ffunction-sections -fdata-sections)
target_link_options(generate_architectures PRIVATE -Wl,--gc-sections)
find_package(Threads REQUIRED)
target_link_libraries(generate_architectures PRIVATE ${LLAMA_CPP_LIBRARIES} Threads::Threads)
set_target_properties(generate_architectures PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
if(CCACHE)
    set_target_properties(generate_architectures PROPERTIES CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
autodeco_run_path(generate_architectures)
