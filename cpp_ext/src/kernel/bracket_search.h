// Searches the descending order of a flat row, one whose mass lies in many tokens: a sample says between which two logits
// a cumulative mass must fall, one pass sums up what lies above them, and only what lies between is looked at more closely.

#pragma once

#include "bucket_search.h"

namespace autodeco {

class bracket_search {
public:
    // whether this is faster than the search by buckets
    static bool pays(const logits_row & r, const row_sums & sums);

    // r.e filled, with mass `total`
    bracket_search(const logits_row & r, exponent_map em, double total, row_workspace & ws);

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it); false if the sample misled
    bool find(double target, bool strictly, mass_position & found);

private:
    const logits_row r;
    exponent_map     em;
    double           total;
    row_workspace &  ws;
    logits_row       sample;
    row_sums         sums; // of the sample
    bucket_search    in_sample;

    void bracket(double share, float & lo, float & hi);
};

} // namespace autodeco
