#include "route/encode.h"

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace xfrmesh {
namespace {

constexpr std::size_t kAddress4 = 4;

bool isAddressFamily(std::uint8_t family) { return family == AF_INET || family == AF_INET6; }

bool isWellFormed(const NeighbourRecord& record) {
  if (record.length != kNeighbourBytes || record.given > kGivenAll) return false;
  if (record.operation != NeighbourOperation::kSet && record.operation != NeighbourOperation::kDelete) return false;
  if (record.family == AF_BRIDGE) return record.destinationFamily == 0 || isAddressFamily(record.destinationFamily);
  return isAddressFamily(record.family) && record.destinationFamily == record.family;
}

bool has(const NeighbourRecord& record, NeighbourGiven field) { return (record.given & field) != 0; }

void putDestination(MessageWriter& writer, const NeighbourRecord& record) {
  if (record.destinationFamily == 0) return;
  const Bytes bytes = bytesOf(record.destination);
  writer.attribute(NDA_DST, {record.destinationFamily == AF_INET ? bytes.first(kAddress4) : bytes});
}

void putLinkAddress(MessageWriter& writer, const NeighbourRecord& record) {
  if (has(record, kGivenLinkAddress)) writer.attribute(NDA_LLADDR, {bytesOf(record.linkAddress)});
}

}  // namespace

std::optional<NeighbourRecord> takeNeighbour(Bytes& records) {
  if (records.size() < kNeighbourBytes) return std::nullopt;
  const auto record = load<NeighbourRecord>(records);
  if (!isWellFormed(record)) return std::nullopt;
  records = records.subspan(kNeighbourBytes);
  return record;
}

std::size_t encodeNeighbour(const NeighbourRecord& record, std::uint16_t flags, std::uint32_t sequence,
                            std::span<std::byte> room) {
  const bool isSet = record.operation == NeighbourOperation::kSet;
  // Without NLM_F_REPLACE the kernel takes an entry that leads elsewhere for done, and leaves it as it is.
  const int how = NLM_F_REQUEST | flags | (isSet ? NLM_F_CREATE | NLM_F_REPLACE : 0);
  MessageWriter writer(room, isSet ? RTM_NEWNEIGH : RTM_DELNEIGH, static_cast<std::uint16_t>(how), sequence);
  ndmsg head{};
  head.ndm_family = record.family;
  head.ndm_ifindex = record.interfaceIndex;
  head.ndm_state = record.state;
  head.ndm_flags = record.flags;
  writer.appendValue(head);
  putDestination(writer, record);
  putLinkAddress(writer, record);
  if (has(record, kGivenPort)) writer.attributeValue(NDA_PORT, htons(record.port));
  if (has(record, kGivenVni)) writer.attributeValue(NDA_VNI, record.vni);
  if (has(record, kGivenInterface)) writer.attributeValue(NDA_IFINDEX, record.interfaceTo);
  if (has(record, kGivenNexthop)) writer.attributeValue(NDA_NH_ID, record.nexthop);
  return writer.finish();
}

std::size_t encodeNeighbourGet(const NeighbourRecord& record, std::uint16_t flags, std::uint32_t sequence,
                               std::span<std::byte> room) {
  MessageWriter writer(room, RTM_GETNEIGH, static_cast<std::uint16_t>(NLM_F_REQUEST | flags), sequence);
  const bool isFdb = record.family == AF_BRIDGE;
  ndmsg head{};
  head.ndm_family = record.family;
  head.ndm_ifindex = record.interfaceIndex;
  head.ndm_flags = isFdb ? NTF_SELF : 0;
  writer.appendValue(head);
  if (isFdb) {
    putLinkAddress(writer, record);
  } else {
    putDestination(writer, record);
  }
  return writer.finish();
}

std::size_t encodeNeighbourDump(std::uint8_t family, std::int32_t interfaceIndex, std::span<std::byte> room) {
  MessageWriter writer(room, RTM_GETNEIGH, 0, 0);
  ndmsg head{};
  head.ndm_family = family;
  writer.appendValue(head);
  writer.attributeValue(NDA_IFINDEX, interfaceIndex);
  return writer.finish();
}

}  // namespace xfrmesh
