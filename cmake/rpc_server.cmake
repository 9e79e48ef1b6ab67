# ggml-rpc-server, which lends the devices of its machine to the programs of others: llama.cpp's own.
if(NOT EXISTS ${LLAMA_CPP_DIR}/tools/rpc/CMakeLists.txt)
    message(FATAL_ERROR "autodeco: LLAMA_CPP_DIR=${LLAMA_CPP_DIR} lacks tools/rpc: complete it with python3 cmake/llama_cpp_source.py ${LLAMA_CPP_DIR}")
endif()
add_subdirectory(${LLAMA_CPP_DIR}/tools/rpc rpc)
set_target_properties(ggml-rpc-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
