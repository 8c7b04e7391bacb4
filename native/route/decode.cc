#include "route/decode.h"

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>

namespace xfrmesh {
namespace {

bool takeDestination(Bytes payload, NeighbourRecord& record) {
  if (payload.size() != sizeof(in_addr) && payload.size() != sizeof record.destination) return false;
  record.destinationFamily = payload.size() == sizeof(in_addr) ? AF_INET : AF_INET6;
  std::fill(std::begin(record.destination), std::end(record.destination), std::uint8_t{0});
  std::memcpy(record.destination, payload.data(), payload.size());
  return true;
}

template <typename T>
bool takeValue(Bytes payload, NeighbourGiven field, NeighbourRecord& record, T& value) {
  if (payload.size() != sizeof value) return false;
  value = load<T>(payload);
  record.given |= static_cast<std::uint8_t>(field);
  return true;
}

bool takeField(const Attribute& attribute, NeighbourRecord& record) {
  const Bytes payload = attribute.payload;
  switch (attribute.type) {
    case NDA_DST:
      return takeDestination(payload, record);
    case NDA_LLADDR:
      // Links of other kinds have addresses of other lengths.
      if (payload.size() != sizeof record.linkAddress) return true;
      record.given |= kGivenLinkAddress;
      std::memcpy(record.linkAddress, payload.data(), payload.size());
      return true;
    case NDA_PORT:
      if (!takeValue(payload, kGivenPort, record, record.port)) return false;
      record.port = ntohs(record.port);
      return true;
    case NDA_VNI:
      return takeValue(payload, kGivenVni, record, record.vni);
    case NDA_IFINDEX:
      return takeValue(payload, kGivenInterface, record, record.interfaceTo);
    case NDA_NH_ID:
      return takeValue(payload, kGivenNexthop, record, record.nexthop);
    default:
      return true;
  }
}

}  // namespace

bool NeighbourDecoder::decode(const Message& message) {
  if (message.header.nlmsg_type != RTM_NEWNEIGH) return true;
  if (message.payload.size() < sizeof(ndmsg)) return false;
  const auto head = load<ndmsg>(message.payload);
  const bool isFdb = head.ndm_family == AF_BRIDGE;
  if (!isFdb && head.ndm_family != AF_INET && head.ndm_family != AF_INET6) return true;
  if (isFdb && (head.ndm_flags & NTF_SELF) == 0) return true;
  if (interfaceIndex_ != 0 && head.ndm_ifindex != interfaceIndex_) return true;
  NeighbourRecord record{};
  record.length = kNeighbourBytes;
  record.operation = NeighbourOperation::kSet;
  record.family = head.ndm_family;
  record.flags = head.ndm_flags;
  record.state = head.ndm_state;
  record.interfaceIndex = head.ndm_ifindex;
  Bytes rest = message.payload.subspan(sizeof head);
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    if (!takeField(attribute, record)) return false;
  }
  if (rest.size() >= sizeof(nlattr)) return false;
  if (!isFdb && record.destinationFamily != record.family) return false;
  const Bytes bytes = bytesOf(record);
  records_.insert(records_.end(), bytes.begin(), bytes.end());
  return true;
}

}  // namespace xfrmesh
