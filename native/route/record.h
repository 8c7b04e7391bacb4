// Records of neighbours: entries of the neighbour tables (ARP, NDP) and of links' forwarding databases (FDB), as
// batches bring them and dumps give them back. One buffer of self-delimiting records in host byte order, as in
// record.h; these have no tail. lib/kernel/neighbour-records.ts knows the same offsets; a test compares them with
// layout().
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace xfrmesh {

enum class NeighbourOperation : std::uint8_t {
  kSet = 1,     // RTM_NEWNEIGH: makes the entry, or makes it this
  kDelete = 2,  // RTM_DELNEIGH
};

// Which of a record's fields hold anything.
enum NeighbourGiven : std::uint8_t {
  kGivenLinkAddress = 1,
  kGivenPort = 2,
  kGivenVni = 4,
  kGivenInterface = 8,
  kGivenNexthop = 16,
  kGivenAll = 31,
};

// linux/neighbour.h: struct ndmsg and NDA_*. An FDB entry leads from `linkAddress` to `destination`, a neighbour entry
// from `destination` to `linkAddress`.
struct NeighbourRecord {
  std::uint32_t length;  // of the record: kNeighbourBytes
  NeighbourOperation operation;
  std::uint8_t family;             // AF_INET, AF_INET6: a neighbour entry; AF_BRIDGE: an FDB entry
  std::uint8_t destinationFamily;  // AF_INET, AF_INET6, or 0: an FDB entry without, or of any, destination
  std::uint8_t flags;              // NTF_*
  std::uint16_t state;             // NUD_*
  std::uint16_t port;              // NDA_PORT: where it differs from the link's own
  std::uint8_t given;              // NeighbourGiven
  std::uint8_t reserved;
  std::uint8_t linkAddress[6];   // NDA_LLADDR
  std::int32_t interfaceIndex;   // of the link whose entry it is
  std::uint8_t destination[16];  // NDA_DST; IPv4 in the first four bytes, the rest zero
  std::uint32_t vni;             // NDA_VNI: where it differs from the link's own
  std::uint32_t interfaceTo;     // NDA_IFINDEX: the link to send by
  std::uint32_t nexthop;         // NDA_NH_ID: in place of a destination
  std::uint32_t padding;
};

inline constexpr std::size_t kNeighbourBytes = 56;
static_assert(sizeof(NeighbourRecord) == kNeighbourBytes && kNeighbourBytes % 8 == 0);
static_assert(std::is_trivially_copyable_v<NeighbourRecord>);

}  // namespace xfrmesh
