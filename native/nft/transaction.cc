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

constexpr std::size_t kLongestList = kLongestAttribute - sizeof(nlattr);

// A record whose every part was found to lie within its length.
struct Record {
  TransactionRecord head;
  Bytes attributes;
  Bytes elements;  // packed keys, or elements that are ready
};

bool wellFormed(Bytes attributes) {
  Attribute attribute{};
  while (takeAttribute(attributes, attribute)) {
  }
  return attributes.empty();
}

// What the first `count` elements of the span take, with their padding; nullopt unless they are there and each fits
// into a list.
std::optional<std::size_t> elementsSize(Bytes bytes, std::uint32_t count) {
  const std::size_t all = bytes.size();
  Attribute attribute{};
  for (std::uint32_t i = 0; i < count; i++) {
    if (!takeAttribute(bytes, attribute) || attribute.type != NFTA_LIST_ELEM) return std::nullopt;
    if (align4(attribute.whole.size()) > kLongestList) return std::nullopt;
  }
  return all - bytes.size();
}

// What follows the attributes, by the record's kind.
std::optional<std::size_t> tailSize(const TransactionRecord& head, Bytes rest) {
  const bool counted = head.elementCount != 0;
  switch (head.kind) {
    case TransactionKind::kPlain:
      if (head.keyBytes != 0 || counted) return std::nullopt;
      return 0;
    case TransactionKind::kKeys:
      if (head.keyBytes == 0 || head.keyBytes > NFT_DATA_VALUE_MAXLEN || !counted) return std::nullopt;
      if (head.elementCount > rest.size() / head.keyBytes) return std::nullopt;
      return std::size_t{head.elementCount} * head.keyBytes;
    case TransactionKind::kElements:
      if (head.keyBytes != 0 || !counted) return std::nullopt;
      return elementsSize(rest, head.elementCount);
    default:
      return std::nullopt;
  }
}

// Reads the first record of the span.
std::optional<Record> readRecord(Bytes records) {
  if (records.size() < sizeof(TransactionRecord)) return std::nullopt;
  Record record{.head = load<TransactionRecord>(records), .attributes = {}, .elements = {}};
  const auto& head = record.head;
  if (head.length < sizeof head || head.length % alignof(std::uint64_t) != 0 || head.length > records.size())
    return std::nullopt;
  if (head.type >= NFT_MSG_MAX || (head.flags & ~kFlags) != 0) return std::nullopt;

  const auto tail = records.first(head.length).subspan(sizeof head);
  if (head.attributeBytes > tail.size()) return std::nullopt;
  record.attributes = tail.first(head.attributeBytes);
  if (!wellFormed(record.attributes)) return std::nullopt;

  // The tail is a multiple of eight, so the padding is in it.
  const Bytes rest = tail.subspan(align4(head.attributeBytes));
  const auto size = tailSize(head, rest);
  if (!size || rest.size() - *size >= alignof(std::uint64_t)) return std::nullopt;
  record.elements = rest.first(*size);
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

  // Where the last message begins.
  [[nodiscard]] std::size_t lastMessage() const { return message_; }

  // Asks no more for what the message there makes.
  void withdrawEcho(std::size_t message) {
    auto header = load<nlmsghdr>(bytes_, message);
    header.nlmsg_flags &= static_cast<std::uint16_t>(~NLM_F_ECHO);
    patch(message, header);
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

// Takes as many keys off the span as one list holds, and writes them as elements.
void writeKeys(Writer& writer, Bytes& keys, std::size_t keyBytes) {
  const std::size_t most = kLongestList / elementBytes(keyBytes) * keyBytes;
  const Bytes part = keys.first(std::min(keys.size(), most));
  keys = keys.subspan(part.size());
  for (std::size_t at = 0; at < part.size(); at += keyBytes) {
    const auto element = writer.beginNest(NFTA_LIST_ELEM);
    const auto key = writer.beginNest(NFTA_SET_ELEM_KEY);
    writer.attribute(NFTA_DATA_VALUE, part.subspan(at, keyBytes));
    writer.endNest(key);
    writer.endNest(element);
  }
}

// The same for elements that are ready.
void writeReady(Writer& writer, Bytes& elements) {
  Bytes rest = elements;
  std::size_t size = 0;
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    const std::size_t with = elements.size() - rest.size();
    if (with > kLongestList) break;
    size = with;
  }
  writer.appendPadded(elements.first(size));
  elements = elements.subspan(size);
}

// Whether it makes something that gets a handle.
bool makesHandle(std::uint16_t type) {
  return type == NFT_MSG_NEWTABLE || type == NFT_MSG_NEWCHAIN || type == NFT_MSG_NEWRULE || type == NFT_MSG_NEWSET ||
         type == NFT_MSG_NEWOBJ;
}

// The name of the table that a rule is for; empty if it says none.
Bytes tableOf(const Record& rule) {
  Bytes rest = rule.attributes;
  Attribute attribute{};
  while (takeAttribute(rest, attribute))
    if (attribute.type == NFTA_RULE_TABLE) return attribute.payload;
  return {};
}

// Finds rules that follow one another in one table, and withdraws the echo of those that are neither first nor last.
class RunFinder {
 public:
  explicit RunFinder(std::vector<RuleRun>& runs) : runs_(runs) {}

  // The record whose message was just written.
  void take(Writer& writer, const Record& record, std::uint32_t index) {
    if (record.head.type != NFT_MSG_NEWRULE) {
      end();
      return;
    }
    const Bytes table = tableOf(record);
    if (!open_ || record.head.family != family_ || !std::ranges::equal(table, table_)) {
      end();
      open_ = true;
      family_ = record.head.family;
      table_ = table;
      run_.first = index;
    } else if (run_.last != run_.first) {
      writer.withdrawEcho(lastMessage_);
    }
    run_.last = index;
    lastMessage_ = writer.lastMessage();
  }

  void end() {
    if (open_ && run_.last - run_.first > 1) runs_.push_back(run_);
    open_ = false;
  }

 private:
  std::vector<RuleRun>& runs_;
  bool open_ = false;
  std::uint8_t family_ = 0;
  Bytes table_;
  RuleRun run_{};
  std::size_t lastMessage_ = 0;
};

// Returns how many messages the record became.
std::size_t writeRecord(Writer& writer, const Record& record, bool echo) {
  const auto& head = record.head;
  const std::uint16_t flags = head.flags | (echo && makesHandle(head.type) ? NLM_F_ECHO : 0);
  Bytes elements = record.elements;
  std::size_t messages = 0;
  do {
    writer.beginMessage(messageType(record), flags, head.family, 0);
    writer.appendPadded(record.attributes);
    if (head.kind != TransactionKind::kPlain) {
      const auto list = writer.beginNest(NFTA_SET_ELEM_LIST_ELEMENTS);
      if (head.kind == TransactionKind::kKeys) {
        writeKeys(writer, elements, head.keyBytes);
      } else {
        writeReady(writer, elements);
      }
      writer.endNest(list);
    }
    writer.endMessage();
    messages++;
  } while (!elements.empty());
  return messages;
}

// The elements in a message, each whole.
std::vector<Bytes> elementsOf(const Message& message) {
  std::vector<Bytes> elements;
  Bytes attributes = message.payload.subspan(sizeof(nfgenmsg));
  Attribute list{};
  while (takeAttribute(attributes, list)) {
    if (list.type != NFTA_SET_ELEM_LIST_ELEMENTS) continue;
    Attribute element{};
    while (takeAttribute(list.payload, element)) elements.push_back(element.whole);
  }
  return elements;
}

}  // namespace

std::optional<EncodedTransaction> encodeTransaction(Bytes records, std::uint32_t firstSequence,
                                                    std::uint32_t generation, bool echo) {
  EncodedTransaction transaction;
  // A message is shorter than its record; only packed keys become more.
  transaction.bytes.reserve(records.size());
  Writer writer(transaction.bytes, firstSequence);
  writer.beginMessage(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  if (generation != 0) {
    const std::uint32_t wire = htonl(generation);
    writer.attribute(NFNL_BATCH_GENID, bytesOf(wire));
  }
  writer.endMessage();

  RunFinder runs(transaction.unechoed);
  for (std::uint32_t index = 0; !records.empty(); index++) {
    const auto record = readRecord(records);
    if (!record) return std::nullopt;
    transaction.recordOf.insert(transaction.recordOf.end(), writeRecord(writer, *record, echo), index);
    if (echo) runs.take(writer, *record, index);
    records = records.subspan(record->head.length);
  }
  runs.end();
  if (transaction.recordOf.empty()) return std::nullopt;
  writer.acknowledgeMessage();

  writer.beginMessage(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  writer.endMessage();
  return transaction;
}

std::optional<std::uint32_t> elementAt(const EncodedTransaction& transaction, std::uint32_t message,
                                       std::uint32_t offset) {
  if (message >= transaction.recordOf.size()) return std::nullopt;
  Bytes rest = transaction.bytes;
  Message current{};
  takeMessage(rest, current);  // BATCH_BEGIN
  std::uint32_t before = 0;
  for (std::uint32_t i = 0; i <= message && takeMessage(rest, current); i++) {
    if (transaction.recordOf[i] != transaction.recordOf[message]) continue;
    const auto elements = elementsOf(current);
    if (i < message) {
      before += static_cast<std::uint32_t>(elements.size());
      continue;
    }
    for (std::uint32_t n = 0; n < elements.size(); n++) {
      const auto start = static_cast<std::size_t>(elements[n].data() - current.payload.data()) + sizeof(nlmsghdr);
      if (offset >= start && offset < start + elements[n].size()) return before + n;
    }
  }
  return std::nullopt;
}

}  // namespace xfrmesh
