#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace xfrmesh {

// Memory to encode messages into. They hold keys: it is wiped when it goes.
class SecretRoom {
 public:
  explicit SecretRoom(std::size_t size) : bytes_(size) {}
  ~SecretRoom() { explicit_bzero(bytes_.data(), bytes_.size()); }
  SecretRoom(const SecretRoom&) = delete;
  SecretRoom& operator=(const SecretRoom&) = delete;
  std::span<std::byte> all() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace xfrmesh
