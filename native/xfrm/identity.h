#pragma once

#include <cstdint>

#include "xfrm/encode.h"

namespace xfrmesh {

// A hash of what a record is on, such that records on one object of the kernel's have the same: of a state its family,
// protocol, destination, SPI and mark, of a policy its direction, selector, mark and interface id. A policy that is
// deleted by its index has the identity of that index. (Where the masks of two marks overlap the kernel may show one
// state for the other: an addition whose answer was lost is then reported as refused, EEXIST, though it was made.)
std::uint64_t identityOf(const RecordView& record);

}  // namespace xfrmesh
