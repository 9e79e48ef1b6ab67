# Included into the build of llama-cpp-python, by CMAKE_PROJECT_llama_cpp_INCLUDE: half the compiling is spared.

# llama.cpp's command line library, which Python never loads. llama-cpp-python forces the cache entry to ON; a variable hides it.
set(LLAMA_BUILD_COMMON OFF)

# The graphs of the vision models, many small files that read the same long headers, compiled 16 at a time as llama.cpp's others are.
function(autodeco_join_vision_models)
    if(TARGET mtmd)
        get_target_property(sources mtmd SOURCES)
        get_target_property(folder mtmd SOURCE_DIR)
        list(FILTER sources EXCLUDE REGEX "^models/")
        list(TRANSFORM sources PREPEND ${folder}/)
        set_source_files_properties(${sources} TARGET_DIRECTORY mtmd PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
        set_target_properties(mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
    endif()
endfunction()
cmake_language(DEFER CALL autodeco_join_vision_models)
