# The llama.cpp to link: sets LLAMA_CPP_LIBRARIES, LLAMA_CPP_VERSION and LLAMA_CPP_GGML_VERSION.
#
#   AUTODECO_PYTHON=ON    the libraries of the installed llama-cpp-python, which Python loads
#   LLAMA_CPP_DIR=DIR     a source tree, compiled with us
#   else                  an installed llama.cpp, by find_package(llama)
#
# Structures of llama.cpp's samplers change between releases while its library's name does not: these are known, by the
# version of their ggml, which all of them have. `RELEASES` of export/llama_cpp_source.py are the same.
set(LLAMA_CPP_GGML_VERSIONS 0.15.3 0.16.0 0.20.0 0.25.3)
list(JOIN LLAMA_CPP_GGML_VERSIONS ", " LLAMA_CPP_KNOWN)
if(AUTODECO_PROGRAMS)
    set(LLAMA_CPP_DIR ${PROJECT_SOURCE_DIR}/build/llama.cpp)
endif()
set(LLAMA_CPP_DIR "" CACHE PATH "llama.cpp's source tree, of a known version: cmake/llama_cpp_source.py unpacks it")

if(LLAMA_CPP_DIR)
    if(NOT EXISTS ${LLAMA_CPP_DIR}/include/llama.h)
        message(FATAL_ERROR "autodeco: LLAMA_CPP_DIR=${LLAMA_CPP_DIR} is no source tree of llama.cpp: unpack one with cmake/llama_cpp_source.py")
    endif()
    file(STRINGS ${LLAMA_CPP_DIR}/ggml/CMakeLists.txt version_lines REGEX "set\\(GGML_VERSION_(MAJOR|MINOR|PATCH) ")
    string(REGEX REPLACE "[^0-9;]" "" LLAMA_CPP_GGML_VERSION "${version_lines}")
    string(REPLACE ";" "." LLAMA_CPP_GGML_VERSION "${LLAMA_CPP_GGML_VERSION}")
    if(NOT LLAMA_CPP_GGML_VERSION IN_LIST LLAMA_CPP_GGML_VERSIONS)
        message(FATAL_ERROR "autodeco: LLAMA_CPP_DIR=${LLAMA_CPP_DIR} has ggml ${LLAMA_CPP_GGML_VERSION}, this release knows ${LLAMA_CPP_KNOWN}: unpack one with cmake/llama_cpp_source.py")
    endif()
    file(STRINGS ${LLAMA_CPP_DIR}/CMakeLists.txt version_lines REGEX "set\\(LLAMA_VERSION_(MAJOR|MINOR|PATCH) ")
    string(REGEX REPLACE "[^0-9;]" "" LLAMA_CPP_VERSION "${version_lines}")
    string(REPLACE ";" "." LLAMA_CPP_VERSION "${LLAMA_CPP_VERSION}")
    if(NOT LLAMA_CPP_VERSION) # which its source does not say before 0.1.0
        set(LLAMA_CPP_VERSION "of ggml ${LLAMA_CPP_GGML_VERSION}")
    endif()
endif()

if(AUTODECO_PYTHON)
    find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
    execute_process(
        COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/find_llama_cpp_python.py
        OUTPUT_VARIABLE LLAMA_CPP_PYTHON
        OUTPUT_STRIP_TRAILING_WHITESPACE
        RESULT_VARIABLE LLAMA_CPP_PYTHON_MISSING)
    if(LLAMA_CPP_PYTHON_MISSING)
        message(FATAL_ERROR "autodeco: llama-cpp-python is not installed for ${Python_EXECUTABLE}: install a release that pyproject.toml names")
    endif()
    list(GET LLAMA_CPP_PYTHON 0 LLAMA_CPP_PYTHON_VERSION)
    list(GET LLAMA_CPP_PYTHON 1 LLAMA_INCLUDE_DIR)
    list(GET LLAMA_CPP_PYTHON 2 LLAMA_LIB_DIR)
    list(GET LLAMA_CPP_PYTHON 3 LLAMA_CPP_PYTHON_GGML_VERSION)
    # before 0.3.33 ggml can have the same version
    file(STRINGS ${PROJECT_SOURCE_DIR}/pyproject.toml window REGEX "^    \"llama-cpp-python>=")
    string(REGEX MATCH ">=([0-9.]+),<([0-9.]+)" window "${window}")
    if(LLAMA_CPP_PYTHON_VERSION VERSION_LESS CMAKE_MATCH_1 OR NOT LLAMA_CPP_PYTHON_VERSION VERSION_LESS CMAKE_MATCH_2)
        message(FATAL_ERROR "autodeco: llama-cpp-python ${LLAMA_CPP_PYTHON_VERSION} is installed, this release builds with ${window}: install one of these")
    endif()
    message(STATUS "llama-cpp-python ${LLAMA_CPP_PYTHON_VERSION} in ${LLAMA_LIB_DIR}, with ggml ${LLAMA_CPP_PYTHON_GGML_VERSION}")
    if(LLAMA_CPP_PYTHON_GGML_VERSION AND NOT LLAMA_CPP_PYTHON_GGML_VERSION IN_LIST LLAMA_CPP_GGML_VERSIONS)
        message(FATAL_ERROR "autodeco: llama-cpp-python ${LLAMA_CPP_PYTHON_VERSION} has ggml ${LLAMA_CPP_PYTHON_GGML_VERSION}, this release knows ${LLAMA_CPP_KNOWN}: install a release that pyproject.toml names")
    endif()
    set(linked IMPORTED_LOCATION)
    if(WIN32) # what is found there stands for a DLL
        set(linked IMPORTED_IMPLIB)
    endif()
    foreach(lib llama ggml ggml-base)
        find_library(${lib}_LIBRARY NAMES ${lib} PATHS ${LLAMA_LIB_DIR} NO_DEFAULT_PATH NO_CACHE REQUIRED)
        add_library(llama_cpp::${lib} SHARED IMPORTED)
        set_target_properties(llama_cpp::${lib} PROPERTIES
            ${linked} ${${lib}_LIBRARY}
            INTERFACE_INCLUDE_DIRECTORIES ${LLAMA_INCLUDE_DIR})
    endforeach()
    set(LLAMA_CPP_LIBRARIES llama_cpp::llama llama_cpp::ggml llama_cpp::ggml-base)
elseif(LLAMA_CPP_DIR)
    # What runs everywhere in one file. A native build can use instructions that virtual machines list but do not run, and
    # ggml's own threads do what OpenMP's would.
    option(GGML_NATIVE "ggml: optimize for this machine" OFF)
    option(GGML_OPENMP "ggml: use OpenMP" OFF)
    add_subdirectory(${LLAMA_CPP_DIR} llama.cpp)
    if(MINGW)
        include(CheckSymbolExists)
        check_symbol_exists(THREAD_POWER_THROTTLING_CURRENT_VERSION windows.h HAVE_THREAD_POWER_THROTTLING)
        if(NOT HAVE_THREAD_POWER_THROTTLING) # headers before mingw-w64 11 have the same for processes alone
            target_compile_definitions(ggml-cpu PRIVATE
                THREAD_POWER_THROTTLING_STATE=PROCESS_POWER_THROTTLING_STATE
                THREAD_POWER_THROTTLING_CURRENT_VERSION=PROCESS_POWER_THROTTLING_CURRENT_VERSION
                THREAD_POWER_THROTTLING_EXECUTION_SPEED=PROCESS_POWER_THROTTLING_EXECUTION_SPEED)
        endif()
    endif()
    set(LLAMA_CPP_LIBRARIES llama)
else()
    find_package(llama CONFIG)
    if(NOT llama_FOUND)
        message(FATAL_ERROR "autodeco: no llama.cpp: give its source with -DLLAMA_CPP_DIR=DIR (cmake/llama_cpp_source.py unpacks it), or where it is installed with -DCMAKE_PREFIX_PATH=DIR")
    endif()
    find_package(ggml CONFIG REQUIRED)
    if(NOT ggml_VERSION IN_LIST LLAMA_CPP_GGML_VERSIONS)
        message(FATAL_ERROR "autodeco: llama.cpp ${llama_VERSION} is installed, with ggml ${ggml_VERSION}; this release knows ggml ${LLAMA_CPP_KNOWN}: build with -DLLAMA_CPP_DIR=DIR (cmake/llama_cpp_source.py unpacks it)")
    endif()
    set(LLAMA_CPP_GGML_VERSION ${ggml_VERSION})
    set(LLAMA_CPP_VERSION ${llama_VERSION})
    set(LLAMA_CPP_LIBRARIES llama)
endif()

# Let a program find the shared llama.cpp that lies elsewhere, and the linker the libraries that lie beside it.
function(autodeco_run_path target)
    if(LLAMA_LIB_DIR AND NOT WIN32) # which has no paths in programs: PATH, or the folder of the program
        set_target_properties(${target} PROPERTIES BUILD_RPATH ${LLAMA_LIB_DIR})
        target_link_options(${target} PRIVATE -Wl,-rpath-link,${LLAMA_LIB_DIR})
    endif()
endfunction()

# Link a program into one file that needs no other, not even the C library (on Windows: no DLL but the system's), where that can
# be: Linux and MinGW on a CPU.
option(AUTODECO_ONE_FILE "Link autodeco-cli statically, the C library too, and autodeco-server of the wheel" ON)
function(autodeco_one_file target)
    if(AUTODECO_ONE_FILE AND (CMAKE_SYSTEM_NAME STREQUAL Linux OR MINGW) AND LLAMA_CPP_DIR
       AND NOT AUTODECO_PYTHON AND NOT BUILD_SHARED_LIBS AND NOT GGML_CUDA AND NOT GGML_VULKAN AND NOT GGML_RPC)
        target_link_options(${target} PRIVATE -static -Wl,--gc-sections)
    endif()
    if(MINGW) # as much stack as on Linux: tokenizers' regular expressions and chat templates call themselves
        target_link_options(${target} PRIVATE -Wl,--stack,8388608)
    endif()
endfunction()
