// Records of nftables transactions, as TypeScript writes them, and the messages that they become, as a kernel reads
// them.
#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "netlink/message.h"
#include "nft/transaction.h"

namespace xfrmesh::test {

inline void appendBytes(std::vector<std::byte>& to, Bytes bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

inline std::vector<std::byte> bytesOfList(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// One attribute, padded.
inline std::vector<std::byte> attributeOf(std::uint16_t type, Bytes payload) {
  std::vector<std::byte> bytes;
  appendBytes(
      bytes, bytesOf(nlattr{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), .nla_type = type}));
  appendBytes(bytes, payload);
  bytes.resize(align4(bytes.size()));
  return bytes;
}

// Appends a record; its length, attributeBytes and, if kElements, elementCount are worked out here.
inline void appendRecord(std::vector<std::byte>& to, TransactionRecord head, Bytes attributes, Bytes keys = {}) {
  head.attributeBytes = static_cast<std::uint32_t>(attributes.size());
  if (head.kind == TransactionKind::kKeys && head.keyBytes != 0)
    head.elementCount = static_cast<std::uint32_t>(keys.size() / head.keyBytes);
  head.length = static_cast<std::uint32_t>(align8(sizeof head + align4(attributes.size()) + keys.size()));
  const std::size_t start = to.size();
  appendBytes(to, bytesOf(head));
  appendBytes(to, attributes);
  to.resize(start + sizeof head + align4(attributes.size()));
  appendBytes(to, keys);
  to.resize(start + head.length);
}

struct Inner {
  nlmsghdr header;
  nfgenmsg generic;
  std::vector<Attribute> attributes;
};

// The attributes that fill `bytes` exactly; nullopt if they do not.
inline std::optional<std::vector<Attribute>> readAttributes(Bytes bytes) {
  std::vector<Attribute> attributes;
  Attribute attribute{};
  while (takeAttribute(bytes, attribute)) attributes.push_back(attribute);
  if (!bytes.empty()) return std::nullopt;
  return attributes;
}

// The messages that fill `bytes` exactly, each with room for its header; nullopt if they do not.
inline std::optional<std::vector<Inner>> readMessages(Bytes bytes) {
  std::vector<Inner> messages;
  Message message{};
  while (takeMessage(bytes, message)) {
    if (message.header.nlmsg_len % 4 != 0 || message.payload.size() < sizeof(nfgenmsg)) return std::nullopt;
    auto attributes = readAttributes(message.payload.subspan(sizeof(nfgenmsg)));
    if (!attributes) return std::nullopt;
    messages.push_back(
        {.header = message.header, .generic = load<nfgenmsg>(message.payload), .attributes = std::move(*attributes)});
  }
  if (!bytes.empty()) return std::nullopt;
  return messages;
}

}  // namespace xfrmesh::test
