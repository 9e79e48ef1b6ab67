# Windows on x86-64, with Debian's MinGW-w64: apt install g++-mingw-w64-x86-64-posix
set(CMAKE_SYSTEM_NAME      Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER       x86_64-w64-mingw32-gcc-posix) # posix: the variant that has std::thread
set(CMAKE_CXX_COMPILER     x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER      x86_64-w64-mingw32-windres)

set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)

# runs what was built here
set(CMAKE_CROSSCOMPILING_EMULATOR wine)
