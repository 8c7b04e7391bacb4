// SHA-512 (FIPS 180-4). Our own: Node exports OpenSSL's functions, but no promise of which, and its headers are no part
// of Node-API's; and for one short text after the other a look-up of the algorithm costs more than the digest.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "netlink/message.h"

namespace xfrmesh {

// The digest as eight words: the first one's most significant byte is the first byte.
std::array<std::uint64_t, 8> sha512(Bytes message);

// The first words of the digests of as many messages as there is room for: several at once, where the processor can.
void sha512Firsts(std::span<const Bytes> messages, std::span<std::uint64_t> firsts);

}  // namespace xfrmesh
