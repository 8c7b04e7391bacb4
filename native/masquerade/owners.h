// Whose a mapping is, and the comment that says so, as the CNI plugins write it.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "nft/transaction.h"

namespace xfrmesh {

// In columns, a row for each attachment.
struct Owners {
  // H(network) and H(interface:container), H being the first eight bytes of SHA-512.
  std::vector<std::array<std::byte, 16>> owners;
  // "H(network)-H(interface:container), net: …, if: …, id: …", H in hexadecimal, without quotes, cut at 128 bytes.
  std::vector<CommentSlot> comments;
};

// Of attachments by their names, two texts for each that end in NUL: the network, and interface:container. nullopt if
// they are not that.
std::optional<Owners> ownersOf(Bytes names);

}  // namespace xfrmesh
