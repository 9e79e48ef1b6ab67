# The C library, and what other projects find it by: autodeco-config.cmake and autodeco.pc.

add_library(autodeco $<TARGET_OBJECTS:autodeco_core>)
target_include_directories(autodeco PUBLIC cpp_ext/include)
target_link_libraries(autodeco PUBLIC ${LLAMA_CPP_LIBRARIES})
# A program binds to the library it was linked with: below 1.0 every minor version has a binary interface of its own.
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(AUTODECO_SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    set(AUTODECO_COMPATIBLE SameMinorVersion)
else()
    set(AUTODECO_SOVERSION ${PROJECT_VERSION_MAJOR})
    set(AUTODECO_COMPATIBLE SameMajorVersion)
endif()
set_target_properties(autodeco PROPERTIES
    LINKER_LANGUAGE CXX
    VERSION         ${PROJECT_VERSION}
    SOVERSION       ${AUTODECO_SOVERSION}
    PUBLIC_HEADER   ${PROJECT_SOURCE_DIR}/cpp_ext/include/autodeco.h)
if(BUILD_SHARED_LIBS)
    target_compile_definitions(autodeco INTERFACE AUTODECO_SHARED)
endif()

# A component of its own where llama.cpp was there before; else llama.cpp's libraries and headers go with it.
install(TARGETS autodeco
    ARCHIVE       COMPONENT autodeco
    LIBRARY       COMPONENT autodeco
    RUNTIME       COMPONENT autodeco
    PUBLIC_HEADER COMPONENT autodeco)

get_target_property(AUTODECO_LIBRARY_TYPE autodeco TYPE)
string(REPLACE _LIBRARY "" AUTODECO_LIBRARY_TYPE ${AUTODECO_LIBRARY_TYPE})
include(CMakePackageConfigHelpers)
configure_package_config_file(cmake/autodeco-config.cmake.in autodeco-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/autodeco
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(autodeco-config-version.cmake COMPATIBILITY ${AUTODECO_COMPATIBLE})

# What a C program must name beside the libraries themselves; static libraries do not know what they need.
set(AUTODECO_PC_LIBS "-lautodeco -lllama -lggml")
if(TARGET ggml-cpu)
    string(APPEND AUTODECO_PC_LIBS " -lggml-cpu")
endif()
string(APPEND AUTODECO_PC_LIBS " -lggml-base")
foreach(lib ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
    if(lib MATCHES "^(stdc\\+\\+|c\\+\\+|m)$")
        string(APPEND AUTODECO_PC_LIBS " -l${lib}")
    endif()
endforeach()
if(LLAMA_LIB_DIR) # llama.cpp lies elsewhere
    set(AUTODECO_PC_LIBS "-L${LLAMA_LIB_DIR} ${AUTODECO_PC_LIBS}")
    set(AUTODECO_PC_CFLAGS "-I${LLAMA_INCLUDE_DIR}")
endif()
configure_file(cmake/autodeco.pc.in autodeco.pc @ONLY)

install(FILES ${PROJECT_BINARY_DIR}/autodeco-config.cmake ${PROJECT_BINARY_DIR}/autodeco-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/autodeco COMPONENT autodeco)
install(FILES ${PROJECT_BINARY_DIR}/autodeco.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT autodeco)
