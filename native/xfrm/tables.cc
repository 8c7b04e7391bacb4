#include "xfrm/tables.h"

#include <algorithm>

namespace xfrmesh {
namespace {

std::size_t hash(Bytes bytes) {
  const std::string_view view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return std::hash<std::string_view>{}(view);
}

}  // namespace

std::uint32_t Tables::addKey(Bytes key) {
  const auto index = static_cast<std::uint32_t>(keys_.size());
  keys_.emplace_back(key);
  keyIndex_.emplace(hash(key), index);
  return index;
}

std::uint16_t Tables::addAlgorithm(std::string_view name) {
  algorithms_.emplace_back(name);
  return static_cast<std::uint16_t>(algorithms_.size() - 1);
}

std::uint32_t Tables::internKey(Bytes key) {
  const auto [from, to] = keyIndex_.equal_range(hash(key));
  // The lowest index wins, so that equal keys in a batch's table have one meaning.
  std::uint32_t best = UINT32_MAX;
  for (auto at = from; at != to; ++at) {
    const Bytes known = keys_[at->second].bytes();
    if (std::equal(known.begin(), known.end(), key.begin(), key.end())) best = std::min(best, at->second);
  }
  return best != UINT32_MAX ? best : addKey(key);
}

std::uint16_t Tables::internAlgorithm(std::string_view name) {
  const auto found = std::find(algorithms_.begin(), algorithms_.end(), name);
  if (found != algorithms_.end()) return static_cast<std::uint16_t>(found - algorithms_.begin());
  return addAlgorithm(name);
}

}  // namespace xfrmesh
