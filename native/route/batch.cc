#include "route/batch.h"

#include <sys/socket.h>

#include "netlink/hash.h"
#include "route/decode.h"
#include "route/encode.h"

namespace xfrmesh {
namespace {

// Where an FDB entry leads, and nothing else of it.
NeighbourRecord wayOf(const NeighbourRecord& record) {
  NeighbourRecord way{};
  way.destinationFamily = record.destinationFamily;
  std::memcpy(way.destination, record.destination, sizeof way.destination);
  way.given = static_cast<std::uint8_t>(record.given & ~kGivenLinkAddress);
  way.port = record.port;
  way.vni = record.vni;
  way.interfaceTo = record.interfaceTo;
  way.nexthop = record.nexthop;
  return way;
}

bool leadsTheSameWay(const NeighbourRecord& one, const NeighbourRecord& other) {
  const NeighbourRecord first = wayOf(one);
  const NeighbourRecord second = wayOf(other);
  return std::memcmp(&first, &second, sizeof first) == 0;
}

}  // namespace

bool NeighbourBatch::parse() {
  Bytes rest = records_;
  for (count_ = 0; !rest.empty(); count_++) {
    if (!takeNeighbour(rest)) return false;
  }
  return true;
}

std::size_t NeighbourBatch::encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                                   std::span<std::byte> room) {
  return encodeNeighbour(record(index), flags, sequence, room);
}

// The kernel finds an FDB entry by its link address, a neighbour entry by its destination.
std::uint64_t NeighbourBatch::identity(std::uint32_t index) const {
  const NeighbourRecord meant = record(index);
  NeighbourRecord id{};
  id.family = meant.family;
  id.interfaceIndex = meant.interfaceIndex;
  if (meant.family == AF_BRIDGE) {
    std::memcpy(id.linkAddress, meant.linkAddress, sizeof id.linkAddress);
  } else {
    std::memcpy(id.destination, meant.destination, sizeof id.destination);
  }
  return hashOf(id);
}

Batch::Recovery NeighbourBatch::recovery(std::uint32_t index) const {
  return record(index).operation == NeighbourOperation::kSet ? Recovery::kRepeat : Recovery::kRepeatIfThere;
}

std::size_t NeighbourBatch::encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) {
  return encodeNeighbourGet(record(index), NLM_F_ACK, sequence, room);
}

bool NeighbourBatch::confirms(std::uint32_t index, const Message& answer) {
  NeighbourDecoder decoder;
  if (!decoder.decode(answer) || decoder.records().empty()) return false;
  const NeighbourRecord meant = record(index);
  if (meant.family != AF_BRIDGE || meant.destinationFamily == 0) return true;
  return leadsTheSameWay(load<NeighbourRecord>(decoder.records()), meant);
}

}  // namespace xfrmesh
