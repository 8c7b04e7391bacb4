#include "masquerade/subnet.h"

#include <algorithm>

#include "netlink/hash.h"

namespace xfrmesh {

Subnet subnetOf(const Key& address, std::uint8_t family, std::uint8_t prefix) {
  Subnet subnet{.family = family, .prefix = prefix, .first = {}};
  const std::size_t bytes = subnet.addressBytes();
  std::copy(address.end() - static_cast<std::ptrdiff_t>(bytes), address.end(), subnet.first.begin());
  for (std::size_t i = 0; i < bytes; i++) {
    const std::size_t kept = std::min<std::size_t>(std::max<std::size_t>(prefix, i * 8) - i * 8, 8);
    subnet.first[i] &= static_cast<std::byte>(0xff00U >> kept);
  }
  return subnet;
}

std::size_t SubnetHash::operator()(const Subnet& subnet) const {
  const Bytes bytes(subnet.first);
  return mixed(mixed(subnet.prefix, load<std::uint64_t>(bytes)), load<std::uint64_t>(bytes, sizeof(std::uint64_t)));
}

}  // namespace xfrmesh
