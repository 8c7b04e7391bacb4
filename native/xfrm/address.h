// Addresses as records have them, of the kernel's.
#pragma once

#include <linux/xfrm.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace xfrmesh {

// Of IPv4 the kernel often sets a4 alone, of a union on its stack: esp_input_done2 for a mapping, xfrm_tmpl_resolve_one
// for an SA that is wanted. What stands behind it there is nobody's.
inline void copyAddress(std::uint8_t (&to)[16], const xfrm_address_t& from, std::uint16_t family) {
  std::memset(to, 0, sizeof to);
  std::memcpy(to, &from, family == AF_INET ? sizeof from.a4 : sizeof to);
}

}  // namespace xfrmesh
