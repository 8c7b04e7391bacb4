// What records name by index: keys and algorithm names.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "netlink/message.h"

namespace xfrmesh {

// Bytes that are overwritten when they go.
class Secret {
 public:
  Secret() = default;
  explicit Secret(Bytes bytes) : bytes_(bytes.begin(), bytes.end()) {}
  Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.bytes_.clear(); }
  Secret& operator=(Secret&&) = delete;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() {
    if (!bytes_.empty()) explicit_bzero(bytes_.data(), bytes_.size());
  }
  [[nodiscard]] Bytes bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// The side tables of a batch, or of a dump: there what is found is added, and what is known keeps its index, so that a
// record from a dump and one made for a batch are equal if they mean the same.
class Tables {
 public:
  std::uint32_t addKey(Bytes key);
  std::uint16_t addAlgorithm(std::string_view name);
  // The index of this key, or of this name; added if it is new.
  std::uint32_t internKey(Bytes key);
  std::uint16_t internAlgorithm(std::string_view name);

  [[nodiscard]] const std::vector<Secret>& keys() const { return keys_; }
  [[nodiscard]] const std::vector<std::string>& algorithms() const { return algorithms_; }

 private:
  std::vector<Secret> keys_;
  std::vector<std::string> algorithms_;
  std::unordered_multimap<std::size_t, std::uint32_t> keyIndex_;  // by hash, so that no second copy of a key is kept
};

}  // namespace xfrmesh
