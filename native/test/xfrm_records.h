// Records as TypeScript writes them, for tests.
#pragma once

#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <vector>

#include "netlink/message.h"
#include "record.h"

namespace xfrmesh::test {

// A buffer of records: begin one with its head, then add to its tail.
class Records {
 public:
  template <typename Head>
  Records& add(const Head& head) {
    bytes_.resize(align8(bytes_.size()));
    start_ = bytes_.size();
    const Bytes bytes = bytesOf(head);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return seal();
  }

  Records& attribute(std::uint16_t type, Bytes payload) {
    bytes_.resize(used_);
    const nlattr header{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), .nla_type = type};
    const Bytes bytes = bytesOf(header);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    bytes_.insert(bytes_.end(), payload.begin(), payload.end());
    bytes_.resize(align4(bytes_.size()));
    return seal();
  }

  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  Records& seal() {
    used_ = bytes_.size();
    bytes_.resize(align8(used_));
    const auto length = static_cast<std::uint32_t>(bytes_.size() - start_);
    std::memcpy(bytes_.data() + start_, &length, sizeof length);
    return *this;
  }

  std::vector<std::byte> bytes_;
  std::size_t start_ = 0;
  std::size_t used_ = 0;
};

// 10.0.0.1 to 10.x.y.z by its number.
inline PolicyRecord policyOf(Operation operation, std::uint32_t number) {
  PolicyRecord policy{};
  policy.operation = operation;
  policy.family = AF_INET;
  policy.direction = XFRM_POLICY_OUT;
  policy.destination[0] = 10;
  policy.destination[1] = static_cast<std::uint8_t>(1 + (number >> 16));
  policy.destination[2] = static_cast<std::uint8_t>(number >> 8);
  policy.destination[3] = static_cast<std::uint8_t>(number);
  policy.destinationPrefix = 32;
  policy.source[0] = 10;
  policy.source[3] = 1;
  policy.sourcePrefix = 32;
  return policy;
}

inline StateRecord stateOf(Operation operation, std::uint32_t spi) {
  StateRecord state{};
  state.operation = operation;
  state.family = AF_INET;
  state.protocol = IPPROTO_ESP;
  state.destination[0] = 10;
  state.destination[3] = 2;
  state.source[0] = 10;
  state.source[3] = 1;
  state.spi = spi;
  state.reqid = 7;
  state.cipherKey = kNoKey;
  state.authAlgorithm = kNoAlgorithm;
  state.authKey = kNoKey;
  return state;
}

}  // namespace xfrmesh::test
