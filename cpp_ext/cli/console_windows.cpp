#include "console.h"

#include "options.h"
#include "windows_text.h"

#include <cstdio>
#include <cstdlib>
#include <iostream>

#include <fcntl.h>
#include <io.h>
#include <shellapi.h>

namespace cli {

namespace {

constexpr DWORD MOST_LETTERS = 8192; // of a console's line, which is read in pieces

UINT output_page;

// As it was, for whoever writes to this console next.
void restore_console() {
    SetConsoleOutputCP(output_page);
}

// The console shows UTF-8, and colours by escape sequences.
void prepare_console() {
    output_page = GetConsoleOutputCP();
    if (output_page != 0) {
        SetConsoleOutputCP(CP_UTF8);
        std::atexit(restore_console);
    }
    for (const DWORD number : { STD_OUTPUT_HANDLE, STD_ERROR_HANDLE }) {
        DWORD mode;
        if (GetConsoleMode(GetStdHandle(number), &mode)) {
            SetConsoleMode(GetStdHandle(number), mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
        }
    }
}

bool is_open(FILE * stream) {
    return _fileno(stream) >= 0 && _get_osfhandle(_fileno(stream)) != -1;
}

// By letters of 16 bits: a console gives no UTF-8 before Windows 11, whatever its code page.
input_end read_console_line(std::string & line) {
    std::wstring text;
    wchar_t      part[MOST_LETTERS];
    DWORD        n = 0;
    while (text.empty() || text.back() != L'\n') {
        SetLastError(ERROR_SUCCESS);
        if (!ReadConsoleW(GetStdHandle(STD_INPUT_HANDLE), part, MOST_LETTERS, &n, nullptr)) {
            return input_end::end;
        }
        if (n == 0) {
            return GetLastError() == ERROR_OPERATION_ABORTED ? input_end::interrupt : input_end::end;
        }
        text.append(part, n);
        if (text[0] == 0x1A) { // Ctrl-Z
            return input_end::end;
        }
    }
    text.pop_back();
    line = to_utf8(text);
    return input_end::line;
}

} // namespace

// Those that main() has are in the system's code page, which lacks most letters.
std::vector<std::string> utf8_arguments(int argc, char ** argv) {
    int         n    = 0;
    wchar_t **  wide = CommandLineToArgvW(GetCommandLineW(), &n);
    std::vector<std::string> arguments(argv, argv + argc);
    if (wide) {
        arguments.clear();
        for (int i = 0; i < n; ++i) {
            arguments.push_back(to_utf8(wide[i]));
        }
        LocalFree(wide);
    }
    return arguments;
}

void open_streams() {
    const bool is_closed = !is_open(stdout);
    for (FILE * stream : { stdin, stdout, stderr }) {
        if (!is_open(stream) && !freopen("NUL", stream == stdin ? "rb" : "wb", stream)) {
            throw input_error("standard streams are closed, and NUL cannot be opened");
        }
        _setmode(_fileno(stream), _O_BINARY);
    }
    if (is_closed) {
        throw input_error("standard output is closed; give it a place, such as > NUL");
    }
    prepare_console();
}

bool input_is_terminal() {
    DWORD mode;
    return GetConsoleMode(GetStdHandle(STD_INPUT_HANDLE), &mode);
}

input_end read_input_line(std::string & line) {
    if (input_is_terminal()) {
        return read_console_line(line);
    }
    return std::getline(std::cin, line) ? input_end::line : input_end::end;
}

} // namespace cli
