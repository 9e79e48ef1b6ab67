// SHA-256 by the examples of FIPS 180-4, and fingerprints by those that Python's tests assert too.
//
//   test_fingerprint GOLDEN       the folder with fingerprints.txt, each line a fingerprint and the name of a file beside it

#include "check.h"

#include "file.h"
#include "fingerprint.h"
#include "gguf_header.h"
#include "sha256.h"

#include <algorithm>
#include <fstream>
#include <string>

using namespace autodeco;

static std::string sha256_of(const std::string & text, size_t piece) {
    sha256 digest;
    for (size_t i = 0; i < text.size(); i += piece) {
        digest.add(text.data() + i, std::min(piece, text.size() - i));
    }
    return digest.hex();
}

static void test_sha256() {
    check(sha256_of("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "the digest of three letters", 3);
    check(sha256_of("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "the digest of nothing", 0);
    const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    const std::string many(1000000, 'a');
    for (const size_t piece : { 1, 7, 64, 1000 }) {
        check(sha256_of(two_blocks, piece) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", "text whose padding takes a block, in pieces", (double) piece);
        check(sha256_of(many, piece) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "a million letters, in pieces", (double) piece);
    }
}

static void test_fingerprints(const std::string & folder) {
    std::ifstream list(folder + "/fingerprints.txt");
    std::string   expected, name;
    int           n = 0;
    for (; list >> expected >> name; ++n) {
        failure        error;
        const file_ptr file = open_file(folder + "/" + name, error);
        const uint64_t size = file ? gguf_bytes_of(file.get()).size : 0;
        check(size > 0 && fingerprint(file.get(), 0, size) == expected, ("the fingerprint of " + name).c_str(), (double) size);
        check(fingerprint(file.get(), 1, size - 1) != expected, "another part of it has another", (double) size);
        check(fingerprint(file.get(), 1, size).empty(), "there is none of more than the file has", (double) size);
    }
    check(n == 2, "files of either kind have been compared", n);
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s GOLDEN\n", argv[0]);
        return 2;
    }
    test_sha256();
    test_fingerprints(argv[1]);
    return report();
}
