#include "netlink/message.h"

#include <algorithm>

namespace xfrmesh {
MessageWriter::MessageWriter(std::span<std::byte> room, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence)
    : room_(room) {
  appendValue(
      nlmsghdr{.nlmsg_len = 0, .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = sequence, .nlmsg_pid = 0});
}

void MessageWriter::append(Bytes payload) {
  const std::size_t padded = align4(payload.size());
  if (!fits_ || room_.size() - used_ < padded) {
    fits_ = false;
    return;
  }
  std::copy(payload.begin(), payload.end(), room_.begin() + static_cast<std::ptrdiff_t>(used_));
  std::fill_n(room_.begin() + static_cast<std::ptrdiff_t>(used_ + payload.size()), padded - payload.size(),
              std::byte{0});
  used_ += padded;
}

void MessageWriter::attribute(std::uint16_t type, std::initializer_list<Bytes> parts) {
  std::size_t length = sizeof(nlattr);
  for (const Bytes& part : parts) length += part.size();
  if (!fits_ || length > UINT16_MAX || room_.size() - used_ < align4(length)) {
    fits_ = false;
    return;
  }
  std::size_t at = used_;
  const nlattr header{.nla_len = static_cast<std::uint16_t>(length), .nla_type = type};
  std::memcpy(room_.data() + at, &header, sizeof header);
  at += sizeof header;
  for (const Bytes& part : parts) {
    std::copy(part.begin(), part.end(), room_.begin() + static_cast<std::ptrdiff_t>(at));
    at += part.size();
  }
  std::fill(room_.begin() + static_cast<std::ptrdiff_t>(at),
            room_.begin() + static_cast<std::ptrdiff_t>(used_ + align4(length)), std::byte{0});
  used_ += align4(length);
}

std::size_t MessageWriter::finish() {
  if (!fits_) return 0;
  const auto length = static_cast<std::uint32_t>(used_);
  std::memcpy(room_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof length);
  return used_;
}

bool takeMessage(Bytes& bytes, Message& message) {
  if (bytes.size() < sizeof(nlmsghdr)) return false;
  message.header = load<nlmsghdr>(bytes);
  const std::size_t length = message.header.nlmsg_len;
  if (length < sizeof(nlmsghdr) || length > bytes.size()) return false;
  message.payload = bytes.subspan(sizeof(nlmsghdr), length - sizeof(nlmsghdr));
  bytes = bytes.subspan(std::min(align4(length), bytes.size()));
  return true;
}

}  // namespace xfrmesh
