// From records of neighbours to the kernel's messages (linux/neighbour.h).
#pragma once

#include <optional>
#include <span>

#include "netlink/message.h"
#include "route/record.h"

namespace xfrmesh {

// Takes the first record off `records`; nothing if what is there is no record: another length, an unknown operation, a
// family that is none, a neighbour entry without its address.
std::optional<NeighbourRecord> takeNeighbour(Bytes& records);

// The message that carries out a record. 0 if `room` is too small.
std::size_t encodeNeighbour(const NeighbourRecord& record, std::uint16_t flags, std::uint32_t sequence,
                            std::span<std::byte> room);

// The message that asks for the entry a record names (RTM_GETNEIGH).
std::size_t encodeNeighbourGet(const NeighbourRecord& record, std::uint16_t flags, std::uint32_t sequence,
                               std::span<std::byte> room);

// The payload of the message that asks for all entries of a family on a link. Kernels heed the link for the FDB only
// from a socket that is checked strictly.
std::size_t encodeNeighbourDump(std::uint8_t family, std::int32_t interfaceIndex, std::span<std::byte> room);

}  // namespace xfrmesh
