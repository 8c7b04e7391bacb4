#include "nft/transaction.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "netlink/message.h"

namespace xfrmesh {
namespace {

constexpr std::uint16_t kFlags = NLM_F_REPLACE | NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND | NLM_F_ECHO;
constexpr std::size_t kLongestAttribute = 0xffff;  // nlattr.nla_len is 16 bits, its own header included

// A record whose every part was found to lie within its length.
struct Record {
  TransactionRecord head;
  Bytes attributes;
  Bytes keys;
};

bool wellFormed(Bytes attributes) {
  Attribute attribute{};
  while (takeAttribute(attributes, attribute)) {
  }
  return attributes.empty();
}

// Reads the first record of the span.
std::optional<Record> readRecord(Bytes records) {
  if (records.size() < sizeof(TransactionRecord)) return std::nullopt;
  Record record{.head = load<TransactionRecord>(records), .attributes = {}, .keys = {}};
  const auto& head = record.head;
  if (head.length < sizeof head || head.length % alignof(std::uint64_t) != 0 || head.length > records.size())
    return std::nullopt;
  if (head.type >= NFT_MSG_MAX || (head.flags & ~kFlags) != 0) return std::nullopt;

  const auto tail = records.first(head.length).subspan(sizeof head);
  if (head.attributeBytes > tail.size()) return std::nullopt;
  record.attributes = tail.first(head.attributeBytes);
  if (!wellFormed(record.attributes)) return std::nullopt;

  const Bytes rest = tail.subspan(align4(head.attributeBytes));
  std::size_t keyBytes = 0;
  switch (head.kind) {
    case TransactionKind::kPlain:
      if (head.keyBytes != 0 || head.keyCount != 0) return std::nullopt;
      break;
    case TransactionKind::kElements:
      if (head.keyBytes == 0 || head.keyBytes > NFT_DATA_VALUE_MAXLEN || head.keyCount == 0) return std::nullopt;
      if (head.keyCount > rest.size() / head.keyBytes) return std::nullopt;
      keyBytes = std::size_t{head.keyCount} * head.keyBytes;
      break;
    default:
      return std::nullopt;
  }
  if (rest.size() - keyBytes >= alignof(std::uint64_t)) return std::nullopt;
  record.keys = rest.first(keyBytes);
  return record;
}

// Appends to the transaction's bytes. Lengths of messages and of nests are set when they end.
class Writer {
 public:
  Writer(std::vector<std::byte>& bytes, std::uint32_t firstSequence) : bytes_(bytes), sequence_(firstSequence) {}

  void beginMessage(std::uint16_t type, std::uint16_t flags, std::uint8_t family, std::uint16_t resource) {
    message_ = bytes_.size();
    append(nlmsghdr{.nlmsg_len = 0,
                    .nlmsg_type = type,
                    .nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags),
                    .nlmsg_seq = sequence_++,
                    .nlmsg_pid = 0});
    append(nfgenmsg{.nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(resource)});
  }

  void endMessage() { patch(message_, static_cast<std::uint32_t>(bytes_.size() - message_)); }

  void acknowledgeMessage() {
    auto header = load<nlmsghdr>(bytes_, message_);
    header.nlmsg_flags |= NLM_F_ACK;
    patch(message_, header);
  }

  std::size_t beginNest(std::uint16_t type) {
    const std::size_t start = bytes_.size();
    append(nlattr{.nla_len = 0, .nla_type = static_cast<std::uint16_t>(type | NLA_F_NESTED)});
    return start;
  }

  void endNest(std::size_t start) { patch(start, static_cast<std::uint16_t>(bytes_.size() - start)); }

  void attribute(std::uint16_t type, Bytes payload) {
    append(nlattr{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), .nla_type = type});
    appendPadded(payload);
  }

  void appendPadded(Bytes bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    bytes_.resize(align4(bytes_.size()));
  }

 private:
  template <typename T>
  void append(const T& value) {
    const Bytes bytes = bytesOf(value);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

  template <typename T>
  void patch(std::size_t at, const T& value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }

  std::vector<std::byte>& bytes_;
  std::uint32_t sequence_;
  std::size_t message_ = 0;
};

constexpr std::uint16_t messageType(const Record& record) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | record.head.type);
}

// What one key takes in NFTA_SET_ELEM_LIST_ELEMENTS: an element, in it a key, in it a value.
constexpr std::size_t elementBytes(std::size_t keyBytes) { return 3 * sizeof(nlattr) + align4(keyBytes); }

std::size_t keysPerMessage(std::size_t keyBytes) {
  return (kLongestAttribute - sizeof(nlattr)) / elementBytes(keyBytes);
}

void writeElements(Writer& writer, Bytes keys, std::size_t keyBytes) {
  const auto list = writer.beginNest(NFTA_SET_ELEM_LIST_ELEMENTS);
  for (; !keys.empty(); keys = keys.subspan(keyBytes)) {
    const auto element = writer.beginNest(NFTA_LIST_ELEM);
    const auto key = writer.beginNest(NFTA_SET_ELEM_KEY);
    writer.attribute(NFTA_DATA_VALUE, keys.first(keyBytes));
    writer.endNest(key);
    writer.endNest(element);
  }
  writer.endNest(list);
}

// Returns how many messages the record became.
std::size_t writeRecord(Writer& writer, const Record& record) {
  const auto& head = record.head;
  auto keys = record.keys;
  std::size_t messages = 0;
  do {
    writer.beginMessage(messageType(record), head.flags, head.family, 0);
    writer.appendPadded(record.attributes);
    if (head.kind == TransactionKind::kElements) {
      const auto part = keys.first(std::min(keys.size(), keysPerMessage(head.keyBytes) * head.keyBytes));
      writeElements(writer, part, head.keyBytes);
      keys = keys.subspan(part.size());
    }
    writer.endMessage();
    messages++;
  } while (!keys.empty());
  return messages;
}

}  // namespace

std::optional<EncodedTransaction> encodeTransaction(Bytes records, std::uint32_t firstSequence,
                                                    std::uint32_t generation) {
  EncodedTransaction transaction;
  Writer writer(transaction.bytes, firstSequence);
  writer.beginMessage(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  if (generation != 0) {
    const std::uint32_t wire = htonl(generation);
    writer.attribute(NFNL_BATCH_GENID, bytesOf(wire));
  }
  writer.endMessage();

  for (std::uint32_t index = 0; !records.empty(); index++) {
    const auto record = readRecord(records);
    if (!record) return std::nullopt;
    transaction.recordOf.insert(transaction.recordOf.end(), writeRecord(writer, *record), index);
    records = records.subspan(record->head.length);
  }
  if (transaction.recordOf.empty()) return std::nullopt;
  writer.acknowledgeMessage();

  writer.beginMessage(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  writer.endMessage();
  return transaction;
}

}  // namespace xfrmesh
