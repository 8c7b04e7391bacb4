// Attachments as callers name them: checked, hashed and parsed by the thousand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "masquerade/subnet.h"
#include "nft/transaction.h"

namespace xfrmesh {

// An address on its subnet.
struct Mapping {
  Key address;
  Subnet subnet;
};

// Some that follow one another, in columns, a row for each.
struct Attachments {
  // H(network) and H(interface:container), H being the first eight bytes of SHA-512.
  std::vector<Key> owners;
  // "H(network)-H(interface:container), net: …, if: …, id: …", H in hexadecimal, without quotes, cut at 128 bytes: as
  // the CNI plugins write it.
  std::vector<CommentSlot> comments;
  // Where the mappings of each end among these.
  std::vector<std::uint32_t> ends;
  std::vector<Mapping> mappings;
};

// As text: of each its network, its interface, its container, and as many addresses as `counts` says, each ending in
// NUL.
struct AttachmentTexts {
  Bytes texts;
  std::span<const std::uint32_t> counts;
  bool namesChecked;  // by somebody who knows more of Unicode
};

// Replaces what is in `all`. False unless the texts are plainly good: names printable ASCII and no longer than they may
// be, an interface's none that the kernel refuses, addresses of one attachment distinct and with a prefix each, none of
// a multicast group. What is refused may be good all the same: lib/masquerade/given.ts knows, and why if not.
bool takeAttachments(const AttachmentTexts& given, Attachments& all);

}  // namespace xfrmesh
