#include "nft/echo.h"

#include <endian.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

namespace xfrmesh {
namespace {

// 0 for a message whose object has no handle.
std::uint16_t handleAttribute(std::uint16_t type) {
  switch (type) {
    case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE:
      return NFTA_TABLE_HANDLE;
    case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN:
      return NFTA_CHAIN_HANDLE;
    case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE:
      return NFTA_RULE_HANDLE;
    case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSET:
      return NFTA_SET_HANDLE;
    case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWOBJ:
      return NFTA_OBJ_HANDLE;
    default:
      return 0;
  }
}

}  // namespace

std::uint64_t handleOf(const Message& message) {
  const std::uint16_t wanted = handleAttribute(message.header.nlmsg_type);
  if (wanted == 0 || message.payload.size() < sizeof(nfgenmsg)) return 0;
  Bytes rest = message.payload.subspan(sizeof(nfgenmsg));
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    if (attribute.type == wanted && attribute.payload.size() == sizeof(std::uint64_t))
      return be64toh(load<std::uint64_t>(attribute.payload));
  }
  return 0;
}

bool fillHandles(std::vector<double>& handles, const std::vector<RuleRun>& runs) {
  for (const auto& [first, last] : runs) {
    if (last >= handles.size() || handles[first] == 0 || handles[last] - handles[first] != last - first) return false;
    for (std::uint32_t i = first + 1; i < last; i++) handles[i] = handles[first] + (i - first);
  }
  return true;
}

}  // namespace xfrmesh
