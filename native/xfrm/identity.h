#pragma once

#include <cstdint>

#include "xfrm/encode.h"

namespace xfrmesh {

// A hash of what a record is on, such that records on one object of the kernel's have the same: of a state its family,
// protocol, destination and SPI, of a policy its direction, selector, mark and interface id. States that only their
// marks tell apart have one identity, because the kernel finds each by the other's where the masks overlap. A policy
// that is deleted by its index has the identity of that index.
std::uint64_t identityOf(const RecordView& record);

}  // namespace xfrmesh
