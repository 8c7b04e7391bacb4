// Whatever the records, encodeTransaction refuses them or makes messages that a strict reader takes.
#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "test/nft_records.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

// Makes of these bytes elements whose lengths agree, as many as there is room for, and says how many.
std::uint32_t mendElements(std::span<std::byte> bytes) {
  std::uint32_t count = 0;
  while (bytes.size() >= sizeof(nlattr)) {
    auto attribute = load<nlattr>(bytes);
    const auto most = static_cast<std::uint16_t>(std::min<std::size_t>(bytes.size(), 0xfffc));
    attribute.nla_len =
        static_cast<std::uint16_t>(sizeof attribute + attribute.nla_len % (most - sizeof attribute + 1));
    attribute.nla_type = NFTA_LIST_ELEM | NLA_F_NESTED;
    std::memcpy(bytes.data(), &attribute, sizeof attribute);
    bytes = bytes.subspan(std::min(align4(attribute.nla_len), bytes.size()));
    count++;
  }
  return count;
}

// Makes of these bytes what differs in elements or rules, as many as there is room for.
void mendAlike(TransactionRecord& head, std::span<std::byte> bytes) {
  const bool rules = static_cast<std::uint8_t>(head.kind) % 5 == 4;
  head.kind = rules ? TransactionKind::kRules : TransactionKind::kAlike;
  if (rules) head.type = NFT_MSG_NEWRULE;
  head.keyBytes = static_cast<std::uint16_t>(1 + head.keyBytes % NFT_DATA_VALUE_MAXLEN);
  const bool held = (head.keyAt & 256) != 0;
  head.keyAt %= 256;
  if (!rules && bytes.size() >= sizeof(nlattr)) {
    const std::size_t most = std::min<std::size_t>(bytes.size(), 256);
    mendElements(bytes.first(most));
    bytes = bytes.subspan(std::min(align4(load<nlattr>(bytes).nla_len), bytes.size()));
  }
  if (held && bytes.size() >= NFT_DATA_VALUE_MAXLEN) {
    // Keys alone, to the end.
    head.elementCount = static_cast<std::uint32_t>(bytes.size() / NFT_DATA_VALUE_MAXLEN);
    head.keyBytes = NFT_DATA_VALUE_MAXLEN;
    return;
  }
  head.elementCount = static_cast<std::uint32_t>(bytes.size() / (head.keyBytes + sizeof(CommentSlot)));
  const std::size_t comments = align4(std::size_t{head.elementCount} * head.keyBytes);
  for (std::uint32_t i = 0; i < head.elementCount; i++) {
    const std::size_t at = comments + i * sizeof(CommentSlot) + offsetof(CommentSlot, length);
    if (at >= bytes.size()) break;
    bytes[at] = static_cast<std::byte>(std::to_integer<std::size_t>(bytes[at]) % (sizeof(CommentSlot::text) + 1));
  }
}

// The input as one record whose lengths agree: what chance seldom finds.
std::vector<std::byte> mended(Bytes input) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  if (bytes.size() < sizeof(TransactionRecord)) return bytes;
  bytes.resize(bytes.size() & ~std::size_t{7});
  auto head = load<TransactionRecord>(bytes);
  const auto tail = static_cast<std::uint32_t>(bytes.size() - sizeof head);
  head.length = static_cast<std::uint32_t>(bytes.size());
  head.type %= NFT_MSG_MAX;
  head.flags &= NLM_F_CREATE | NLM_F_APPEND;
  head.attributeBytes %= tail + 1;
  const std::uint32_t rest =
      tail - static_cast<std::uint32_t>(std::min<std::size_t>(align4(head.attributeBytes), tail));
  switch (static_cast<std::uint8_t>(head.kind) % 5) {
    case 0:
      head.kind = TransactionKind::kPlain;
      head.keyBytes = 0;
      head.elementCount = 0;
      break;
    case 1:
      head.kind = TransactionKind::kKeys;
      head.keyBytes = static_cast<std::uint16_t>(1 + head.keyBytes % NFT_DATA_VALUE_MAXLEN);
      head.elementCount = rest / head.keyBytes;
      break;
    case 2:
      head.kind = TransactionKind::kElements;
      head.keyBytes = 0;
      head.elementCount = mendElements(std::span(bytes).last(rest));
      break;
    default:
      mendAlike(head, std::span(bytes).last(rest));
  }
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

void encode(Bytes records, std::uint32_t generation, std::size_t heldCount) {
  // Comments that are held elsewhere, one of them too long.
  const CommentSlot none;
  const CommentSlot one{.type = 0, .length = sizeof(CommentSlot::text), .text = {}};
  const CommentSlot wrong{.type = 0, .length = 255, .text = {}};
  const std::array held{&none, &one, &one, &one, &wrong};
  const auto encoded = encodeTransaction(records, 1, generation, generation == 2, std::span(held).first(heldCount));
  if (!encoded) return;
  const auto messages = test::readMessages(encoded->bytes);
  require(messages && messages->size() == encoded->recordOf.size() + 2);
  require(messages->front().header.nlmsg_type == NFNL_MSG_BATCH_BEGIN);
  require(messages->back().header.nlmsg_type == NFNL_MSG_BATCH_END);
  std::uint32_t sequence = 1;
  for (const auto& message : *messages) {
    require(message.header.nlmsg_seq == sequence++);
    const bool last = sequence == messages->size();
    require(((message.header.nlmsg_flags & NLM_F_ACK) != 0) == last);
  }
  // Whatever the kernel says of a message, at most one of its elements is meant.
  const auto count = static_cast<std::uint32_t>(encoded->recordOf.size());
  for (const std::uint32_t i : {std::uint32_t{0}, count / 2, count - 1, count}) {
    for (const std::uint32_t offset : {0U, 52U, 20U + generation * 4, 0xffffU, 0xffffffffU}) {
      const auto element = elementAt(*encoded, i, offset);
      require(!element || *element < records.size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = std::as_bytes(std::span(data, size));
  const auto generation = static_cast<std::uint32_t>(size % 3);
  const auto bytes = mended(input);
  for (std::size_t held = 0; held <= 5; held++) {
    encode(input, generation, held);
    encode(bytes, generation, held);
  }
  return 0;
}
