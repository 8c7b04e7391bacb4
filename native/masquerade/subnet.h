// The subnets that mappings are on.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace xfrmesh {

// Sixteen bytes that something is found by: an owner, or an address. An IPv4 address is there as an IPv6 one (RFC 4291,
// 2.5.5.2), so that no two have the same.
using Key = std::array<std::byte, 16>;

struct Subnet {
  std::uint8_t family;  // AF_INET or AF_INET6
  std::uint8_t prefix;  // length in bits, 0 to 32 or 128
  Key first;            // its first address, of 4 or 16 bytes, then zeroes
  bool operator==(const Subnet&) const = default;

  // Bytes of its addresses as packets have them: the last ones of their keys.
  [[nodiscard]] std::size_t addressBytes() const { return family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr); }
};
static_assert(sizeof(Subnet) == 18);  // lib/masquerade/subnet.ts reads it

// The one that an address is on.
Subnet subnetOf(const Key& address, std::uint8_t family, std::uint8_t prefix);

struct SubnetHash {
  std::size_t operator()(const Subnet& subnet) const;
};

}  // namespace xfrmesh
