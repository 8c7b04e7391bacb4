// nftables transactions: from records to the one run of messages that the kernel takes whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "netlink/message.h"

namespace xfrmesh {

enum class TransactionKind : std::uint8_t {
  kPlain = 0,     // one message: the attributes as they are
  kKeys = 1,      // set elements: the attributes (NFTA_SET_ELEM_LIST_TABLE, _SET …), then packed keys, in as many
                  // messages as it takes
  kElements = 2,  // the same, but after the attributes stand elements with all that is in them: NFTA_LIST_ELEM each
  kAlike = 3,     // elements that differ in their keys and comments: after the attributes stands one of them, without a
                  // comment; then packed keys, padded to four bytes; then comments, unless they are held elsewhere
  kRules = 4,     // rules that differ in what stands for a key, and in their comments: one's attributes, without a
                  // comment; then packed keys and comments as above. Each is a message, and counts as a record
};

constexpr std::size_t kLongestComment = 128;  // that nft takes, in bytes, without its NUL

// A comment as user data the way nft keeps it: a type, which is 0, a length with the NUL, the text and its NUL. With a
// length of 0 there is none. What follows is not looked at.
struct CommentSlot {
  std::uint8_t type = 0;
  std::uint8_t length = 0;
  char text[kLongestComment + 2] = {};
};
static_assert(sizeof(CommentSlot) == 132 && std::is_trivially_copyable_v<CommentSlot>);
using HeldComments = std::span<const CommentSlot* const>;

// A record's head. Attributes follow it (struct nlattr, NFTA_*), padded to four bytes; after them what its kind says:
// keys are without gaps, elements each padded to four bytes. A record begins at a multiple of eight bytes. Integers are
// in host byte order, keys and what is in the attributes as the kernel takes them. lib/kernel/nft-records.ts knows the
// same offsets.
struct TransactionRecord {
  std::uint32_t length;  // of the whole record, padding included: a multiple of eight
  std::uint16_t type;    // NFT_MSG_*
  std::uint16_t flags;   // NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_APPEND, NLM_F_ECHO
  std::uint8_t family;   // NFPROTO_*
  TransactionKind kind;
  std::uint16_t keyBytes;        // of one key, 1 to NFT_DATA_VALUE_MAXLEN; 0 with kPlain and kElements
  std::uint32_t attributeBytes;  // without the padding
  std::uint32_t elementCount;    // of elements or rules, at least 1; 0 with kPlain
  std::uint32_t keyAt;           // where a key goes in the element (kAlike) or the attributes (kRules), else 0
};
static_assert(sizeof(TransactionRecord) == 24 && std::is_trivially_copyable_v<TransactionRecord>);

// Rules that follow one another in one table, by record: the first and the last of three or more.
struct RuleRun {
  std::uint32_t first;
  std::uint32_t last;
};

struct EncodedTransaction {
  std::vector<std::byte> bytes;         // BATCH_BEGIN, the messages, BATCH_END: one sendmsg
  std::vector<std::uint32_t> recordOf;  // which record the i-th message between them came from
  std::vector<RuleRun> unechoed;        // runs of which the kernel tells the first and the last alone: fillHandles
};

// Which of its record's elements, from 0, the byte at `offset` in the message is a part of: the i-th message between
// BATCH_BEGIN and BATCH_END. nullopt if it is of none.
std::optional<std::uint32_t> elementAt(const EncodedTransaction& transaction, std::uint32_t message,
                                       std::uint32_t offset);

// Sequence numbers ascend from firstSequence, which is BATCH_BEGIN's: under that one the kernel reports a commit that
// failed. Only the last message before BATCH_END asks for an acknowledgement (Linux 6.1 ignores that on BATCH_END).
// With `echo`, what messages make is told of, with its handle; of a run of rules only the first and the last are, since
// to tell of all costs the kernel a third of what it takes to make them. With a generation other than 0 the kernel
// refuses the whole with ERESTART if the ruleset's is another by then.
//
// Elements and rules that are alike and come without comments take the next of `held`, all in all as many as there are.
//
// nullopt: the records are malformed, or there are none. Attributes are checked as far as the top level goes, so that
// messages are always well formed; what the nested ones say is between the caller and the kernel.
//
// The messages are written in the memory of `room`.
std::optional<EncodedTransaction> encodeTransaction(Bytes records, std::uint32_t firstSequence,
                                                    std::uint32_t generation, bool echo = false, HeldComments held = {},
                                                    std::vector<std::byte> room = {});

}  // namespace xfrmesh
