// Netlink messages as bytes: an encoder that only appends to memory of its caller's, and a reader that checks every
// length itself (libmnl 1.0.4 takes message lengths from 2^31 up for valid).
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace xfrmesh {

using Bytes = std::span<const std::byte>;

constexpr std::size_t align4(std::size_t n) { return (n + 3) & ~std::size_t{3}; }
constexpr std::size_t align8(std::size_t n) { return (n + 7) & ~std::size_t{7}; }

// Reads a T at `offset`; whatever holds the bytes may be unaligned. The caller has checked that they are there.
template <typename T>
T load(Bytes bytes, std::size_t offset = 0) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <typename T>
Bytes bytesOf(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span(&value, 1));
}

// One message, appended to `room`. Once something did not fit, nothing more is written and finish() returns 0.
class MessageWriter {
 public:
  MessageWriter(std::span<std::byte> room, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence);

  void append(Bytes payload);
  template <typename T>
  void appendValue(const T& value) {
    append(bytesOf(value));
  }
  // An attribute whose payload is the parts, one after the other.
  void attribute(std::uint16_t type, std::initializer_list<Bytes> parts);
  template <typename T>
  void attributeValue(std::uint16_t type, const T& value) {
    attribute(type, {bytesOf(value)});
  }
  // A struct nlattr with its payload, as it is.
  void rawAttribute(Bytes attribute) { append(attribute); }

  // Bytes of the message, a multiple of four; 0 if the room was too small.
  [[nodiscard]] std::size_t finish();

 private:
  std::span<std::byte> room_;
  std::size_t used_ = 0;
  bool fits_ = true;
};

struct Message {
  nlmsghdr header;
  Bytes payload;  // after the header, without padding
};

struct Attribute {
  std::uint16_t type;  // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
  Bytes payload;
  Bytes whole;  // header and payload, without padding
};

// Take the first message, or attribute, off `bytes`. False at the end, and at the first malformed one: then `bytes` is
// left not empty.
bool takeMessage(Bytes& bytes, Message& message);
// Here, since a record's attributes are gone through several times on its way to a message.
inline bool takeAttribute(Bytes& bytes, Attribute& attribute) {
  constexpr std::uint16_t kTypeMask = 0x3fff;  // NLA_TYPE_MASK, as an unsigned number
  if (bytes.size() < sizeof(nlattr)) return false;
  const auto header = load<nlattr>(bytes);
  const std::size_t length = header.nla_len;
  if (length < sizeof(nlattr) || length > bytes.size()) return false;
  attribute.type = header.nla_type & kTypeMask;
  attribute.whole = bytes.first(length);
  attribute.payload = attribute.whole.subspan(sizeof(nlattr));
  const std::size_t padded = align4(length);
  bytes = bytes.subspan(padded < bytes.size() ? padded : bytes.size());
  return true;
}

}  // namespace xfrmesh
