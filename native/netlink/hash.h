// A hash of records, for Batch::identity.
#pragma once

#include <cstdint>

#include "netlink/message.h"

namespace xfrmesh {

inline std::uint64_t mixed(std::uint64_t hash, std::uint64_t word) {
  // 2^64 divided by the golden ratio, made odd.
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
  hash = (hash ^ word) * kSpread;
  return hash ^ (hash >> 32);
}

template <typename Record>
std::uint64_t hashOf(const Record& record) {
  static_assert(sizeof record % sizeof(std::uint64_t) == 0);
  const Bytes bytes = bytesOf(record);
  std::uint64_t hash = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof hash) hash = mixed(hash, load<std::uint64_t>(bytes, at));
  return hash;
}

}  // namespace xfrmesh
