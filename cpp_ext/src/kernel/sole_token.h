// Draws that are certain before the mass of a row is known: nearly all of it may lie in one token.

#pragma once

#include "row_workspace.h"

namespace autodeco {

// A bound from above on the mass of all tokens but the likeliest, whose own is 1, from the maxima of the row's blocks: many
// times faster than the mass itself. Uses the workspace's memory for samples.
double most_beside(const logits_row & r, exponent_map em, row_workspace & ws);

// Whether every draw takes the likeliest token, as its mass alone reaches top_p; `beside` is the bound.
bool is_sole(float top_p, double beside);

// Whether this one does, whatever the nucleus: `uniform` lies in the likeliest token's share of it.
bool takes_likeliest(double uniform, double beside);

} // namespace autodeco
