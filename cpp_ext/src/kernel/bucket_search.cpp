#include "bucket_search.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>

namespace autodeco {

namespace {

// bands of 4 nats, where a peaked row has nearly all its mass in a few tokens, then 8, 16 and 64, beyond MIN_EXPONENT
constexpr float BUCKETS_PER_NAT[] = { 64.0f, 32.0f, 16.0f, 4.0f };

// buckets of at most this many tokens are sorted, larger ones are divided again
constexpr int64_t SORT_LIMIT = 512;

// the largest float that the map puts into the tail, by the very arithmetic of the passes
float largest_in_tail(bucket_map map) {
    const auto in_tail = [map](float z) { return (map.hi - z) * map.scale >= (float) TAIL; };

    float z = map.hi - (float) TAIL / map.scale;
    while (!in_tail(z)) {
        z = std::nextafter(z, -std::numeric_limits<float>::infinity());
    }
    for (float up; in_tail(up = std::nextafter(z, map.hi)) && up != z;) {
        z = up;
    }
    return z;
}

} // namespace

float least_with_mass(exponent_map em) {
    return std::max(-FLT_MAX, em.max + MIN_EXPONENT / em.inv_temperature);
}

bool map_onto_buckets(float lo, float hi, bucket_map & map) {
    map = { lo, hi, (float) (N_BUCKETS - 1) / (hi - lo) };
    return map.scale > 0.0f && map.scale <= FLT_MAX;
}

mass_position find_among_equal(const logits_row & r, float z, int64_t n, mass_position before, double target, bool strictly) {
    const double e     = r.e[best_passes().nth_equal(r, z, 0)];
    const double exact = e > 0.0 ? (target - before.cum) / e : 0.0;
    const auto   k     = (int64_t) std::min(std::max(0.0, strictly ? std::floor(exact) : std::ceil(exact) - 1.0), (double) n - 1.0);
    return { best_passes().nth_equal(r, z, k), (float) e, before.rank + k, before.cum + e * (double) (k + 1) };
}

bucket_search::bucket_search(const logits_row & r, exponent_map em, double total, int64_t n_total, row_workspace & ws) :
    bucket_search(r, { least_with_mass(em), em.max, BUCKETS_PER_NAT[0] * em.inv_temperature }, total, n_total, ws) {}

bucket_search::bucket_search(const logits_row & r, bucket_map map, double total, int64_t n_total, row_workspace & ws) : r(r), ws(ws) {
    bands[0].map = map;
    fill(bands[0], total, n_total);
}

mass_position bucket_search::find(double target, bool strictly) {
    mass_position before = { -1, 0.0f, 0, 0.0 };
    int      k      = 0;
    while (k + 1 < N_BANDS && bands[k].count[TAIL] > 0 && !reached(before.cum + bands[k].above_tail, target, strictly)) {
        before.cum  += bands[k].above_tail;
        before.rank += bands[k].n_above_tail;
        ++k;
        if (k == n_bands) {
            fill_next_band();
        }
    }
    return find_in(bands[k], before, target, strictly, 0);
}

// the tail is what the buckets leave of the level's mass and number
void bucket_search::fill(level & l, double mass, int64_t count) {
    std::fill(ws.bucket_mass.begin(), ws.bucket_mass.end(), 0.0);
    std::fill(ws.bucket_count.begin(), ws.bucket_count.end(), 0u);
    best_passes().histogram(r, l.map, ws.bucket_mass.data(), ws.bucket_count.data());
    l.last         = 0;
    l.above_tail   = 0.0;
    l.n_above_tail = 0;
    for (int32_t b = 0; b < N_BUCKETS; ++b) {
        l.mass[b]  = 0.0;
        l.count[b] = 0;
        for (int32_t lane = 0; lane < N_LANES; ++lane) {
            l.mass[b]  += ws.bucket_mass[b * N_LANES + lane];
            l.count[b] += ws.bucket_count[b * N_LANES + lane];
        }
        l.above_tail   += l.mass[b];
        l.n_above_tail += l.count[b];
        l.last          = l.count[b] > 0 ? b : l.last;
    }
    l.mass[TAIL]  = std::max(0.0, mass - l.above_tail);
    l.count[TAIL] = count - l.n_above_tail;
    l.last        = l.count[TAIL] > 0 ? TAIL : l.last;
}

void bucket_search::fill_next_band() {
    const level & above = bands[n_bands - 1];
    level &       l     = bands[n_bands];
    l.map = { above.map.lo, largest_in_tail(above.map), above.map.scale * (BUCKETS_PER_NAT[n_bands] / BUCKETS_PER_NAT[n_bands - 1]) };
    fill(l, above.mass[TAIL], above.count[TAIL]);
    ++n_bands;
}

mass_position bucket_search::find_in(const level & l, mass_position before, double target, bool strictly, int depth) {
    int32_t b = 0;
    // rounding may leave the target just above the sum of all: then it is the last token's
    while (b < l.last && (l.count[b] == 0 || !reached(before.cum + l.mass[b], target, strictly))) {
        before.cum  += l.mass[b];
        before.rank += l.count[b];
        ++b;
    }
    return find_in_bucket(l.map, b, l.count[b], before, target, strictly, depth);
}

mass_position bucket_search::find_in_bucket(bucket_map map, int32_t bucket, int64_t n, mass_position before, double target, bool strictly, int depth) {
    constexpr int MAX_DEPTH = 6; // six divisions by 256 separate all but wildly spaced logits; sorting is right for any

    if (n > SORT_LIMIT && depth < MAX_DEPTH) {
        float lo, hi;
        best_passes().bucket_range(r, map, bucket, &lo, &hi);
        if (lo == hi) {
            return find_among_equal(r, lo, n, before, target, strictly);
        }
        level inner;
        if (map_onto_buckets(lo, hi, inner.map)) {
            fill(inner, 0.0, n);
            return find_in(inner, before, target, strictly, depth + 1);
        }
    }

    best_passes().gather(r, map, bucket, n, ws.gathered_z.data(), ws.gathered_e.data(), ws.gathered_id.data());
    std::iota(ws.order.begin(), ws.order.begin() + n, 0);
    const float * z = ws.gathered_z.data();
    std::sort(ws.order.begin(), ws.order.begin() + n, [z](int32_t a, int32_t b) {
        return z[a] != z[b] ? z[a] > z[b] : a < b; // gathered in ascending order of id
    });
    for (int64_t k = 0; k < n; ++k) {
        const int32_t i = ws.order[k];
        before.cum += ws.gathered_e[i];
        if (k + 1 == n || reached(before.cum, target, strictly)) {
            return { ws.gathered_id[i], ws.gathered_e[i], before.rank, before.cum };
        }
        before.rank += 1;
    }
    return before;
}

} // namespace autodeco
