# llama.cpp's RPC backend as a library that ggml loads: for tests in which a device is another process.
add_library(ggml_rpc MODULE EXCLUDE_FROM_ALL
    ${LLAMA_CPP_DIR}/ggml/src/ggml-rpc/ggml-rpc.cpp
    ${LLAMA_CPP_DIR}/ggml/src/ggml-rpc/transport.cpp)
target_include_directories(ggml_rpc BEFORE PRIVATE ${LLAMA_CPP_DIR}/ggml/include ${LLAMA_CPP_DIR}/ggml/src)
target_compile_definitions(ggml_rpc PRIVATE GGML_BACKEND_DL GGML_BACKEND_BUILD GGML_BACKEND_SHARED)
target_compile_options(ggml_rpc PRIVATE -O1 -w)
target_link_libraries(ggml_rpc PRIVATE ${LLAMA_CPP_LIBRARIES})
set_target_properties(ggml_rpc PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
if(CCACHE)
    set_target_properties(ggml_rpc PROPERTIES CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
