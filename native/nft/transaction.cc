#include "nft/transaction.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "netlink/message.h"

namespace xfrmesh {
namespace {

constexpr std::uint16_t kFlags = NLM_F_REPLACE | NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND | NLM_F_ECHO;
constexpr std::size_t kLongestAttribute = 0xffff;  // nlattr.nla_len is 16 bits, its own header included

constexpr std::size_t kLongestList = kLongestAttribute - sizeof(nlattr);

// A record whose every part was found to lie within its length.
struct Record {
  TransactionRecord head{};
  Bytes attributes;
  Bytes elements;  // packed keys, or elements that are ready
  // Of those that are alike: what they have in common, and a comment slot for each, here or elsewhere.
  Bytes common;
  Bytes comments;
  HeldComments held;

  [[nodiscard]] Bytes key(std::size_t index) const { return elements.subspan(index * head.keyBytes, head.keyBytes); }
  // As user data; empty if there is none.
  [[nodiscard]] Bytes comment(std::size_t index) const {
    const Bytes slot =
        held.empty() ? comments.subspan(index * sizeof(CommentSlot), sizeof(CommentSlot)) : bytesOf(*held[index]);
    const auto length = load<std::uint8_t>(slot, offsetof(CommentSlot, length));
    return length == 0 ? Bytes{} : slot.first(offsetof(CommentSlot, text) + length);
  }
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

bool isKeyed(const TransactionRecord& head) {
  return head.keyBytes != 0 && head.keyBytes <= NFT_DATA_VALUE_MAXLEN && head.elementCount != 0;
}

// Whether what the key takes is part of one attribute's payload: then they stay well formed, whatever the key.
bool hasRoomForKey(const Record& record) {
  Bytes rest = record.common;
  Attribute attribute{};
  while (takeAttribute(rest, attribute)) {
    const auto start = static_cast<std::size_t>(attribute.payload.data() - record.common.data());
    const std::size_t end = start + attribute.payload.size();
    if (record.head.keyAt >= start && record.head.keyAt <= end) return record.head.keyBytes <= end - record.head.keyAt;
  }
  return false;
}

bool fits(const CommentSlot& slot) { return slot.length <= sizeof slot.text; }

// Takes as many packed keys as the record has, and the comment of each, off the spans.
bool takeAlike(Record& record, Bytes& rest, HeldComments& held) {
  const auto& head = record.head;
  if (!hasRoomForKey(record)) return false;
  if (head.elementCount > rest.size() / head.keyBytes) return false;
  const std::size_t keys = std::size_t{head.elementCount} * head.keyBytes;
  record.elements = rest.first(keys);
  rest = rest.subspan(std::min(align4(keys), rest.size()));
  if (rest.size() < sizeof(CommentSlot)) {
    if (head.elementCount > held.size()) return false;
    record.held = held.first(head.elementCount);
    held = held.subspan(head.elementCount);
    return std::ranges::all_of(record.held, [](const CommentSlot* slot) { return fits(*slot); });
  }
  if (head.elementCount > rest.size() / sizeof(CommentSlot)) return false;
  const std::size_t comments = head.elementCount * sizeof(CommentSlot);
  record.comments = rest.first(comments);
  rest = rest.subspan(comments);
  for (std::size_t at = 0; at < comments; at += sizeof(CommentSlot))
    if (!fits(load<CommentSlot>(record.comments, at))) return false;
  return true;
}

// What a slot and its header take.
constexpr std::size_t kCommentBytes = sizeof(nlattr) + sizeof(CommentSlot);

// Takes what follows the attributes off the span, by the record's kind. False if it is not that.
bool takeTail(Record& record, Bytes& rest, HeldComments& held) {
  const auto& head = record.head;
  Attribute element{};
  switch (head.kind) {
    case TransactionKind::kPlain:
      return head.keyBytes == 0 && head.elementCount == 0;
    case TransactionKind::kKeys:
      if (!isKeyed(head) || head.elementCount > rest.size() / head.keyBytes) return false;
      record.elements = rest.first(std::size_t{head.elementCount} * head.keyBytes);
      break;
    case TransactionKind::kElements: {
      const auto size = elementsSize(rest, head.elementCount);
      if (head.keyBytes != 0 || head.elementCount == 0 || !size) return false;
      record.elements = rest.first(*size);
      break;
    }
    case TransactionKind::kAlike:
      if (!isKeyed(head) || !takeAttribute(rest, element) || element.type != NFTA_LIST_ELEM) return false;
      if (align4(element.whole.size()) + kCommentBytes > kLongestList) return false;
      record.common = element.whole;
      return takeAlike(record, rest, held);
    case TransactionKind::kRules:
      if (!isKeyed(head) || head.type != NFT_MSG_NEWRULE) return false;
      record.common = record.attributes;
      return takeAlike(record, rest, held);
    default:
      return false;
  }
  rest = rest.subspan(record.elements.size());
  return true;
}

// Reads the first record of the span.
std::optional<Record> readRecord(Bytes records, HeldComments& held) {
  if (records.size() < sizeof(TransactionRecord)) return std::nullopt;
  Record record;
  record.head = load<TransactionRecord>(records);
  const auto& head = record.head;
  if (head.length < sizeof head || head.length % alignof(std::uint64_t) != 0 || head.length > records.size())
    return std::nullopt;
  if (head.type >= NFT_MSG_MAX || (head.flags & ~kFlags) != 0) return std::nullopt;

  const auto tail = records.first(head.length).subspan(sizeof head);
  if (head.attributeBytes > tail.size()) return std::nullopt;
  record.attributes = tail.first(head.attributeBytes);
  if (!wellFormed(record.attributes)) return std::nullopt;

  // The tail is a multiple of eight, so the padding is in it.
  Bytes rest = tail.subspan(align4(head.attributeBytes));
  if (!takeTail(record, rest, held) || rest.size() >= alignof(std::uint64_t)) return std::nullopt;
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

  [[nodiscard]] std::size_t position() const { return bytes_.size(); }

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

  // Makes room at once for so many bytes more, and never grows by less than doubling.
  void reserve(std::size_t bytes) {
    const std::size_t needed = bytes_.size() + bytes;
    if (needed > bytes_.capacity()) bytes_.reserve(std::max(needed, 2 * bytes_.capacity()));
  }

  // What those that are alike have in common, with one's key in it and its comment after it.
  void alike(const Record& record, std::size_t index, std::uint16_t commentType) {
    const std::size_t start = bytes_.size();
    appendPadded(record.common);
    std::ranges::copy(record.key(index), bytes_.begin() + static_cast<std::ptrdiff_t>(start + record.head.keyAt));
    const Bytes comment = record.comment(index);
    if (!comment.empty()) attribute(commentType, comment);
  }

  void attribute(std::uint16_t type, Bytes payload) {
    append(nlattr{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), .nla_type = type});
    appendPadded(payload);
  }

  // What is from there on, once more for each of these keys, which take the place of the one at its end.
  void repeat(std::size_t start, Bytes keys, std::size_t keyBytes) {
    const std::size_t size = bytes_.size() - start;
    const std::size_t keyAt = size - align4(keyBytes);
    bytes_.resize(start + size * (1 + keys.size() / keyBytes));
    std::byte* to = bytes_.data() + start;
    for (std::size_t at = 0; at < keys.size(); at += keyBytes) {
      to = std::copy_n(to, size, to + size) - size;
      std::ranges::copy(keys.subspan(at, keyBytes), to + keyAt);
    }
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
  writer.reserve(part.size() / keyBytes * elementBytes(keyBytes));
  const auto element = writer.beginNest(NFTA_LIST_ELEM);
  const auto key = writer.beginNest(NFTA_SET_ELEM_KEY);
  writer.attribute(NFTA_DATA_VALUE, part.first(keyBytes));
  writer.endNest(key);
  writer.endNest(element);
  writer.repeat(element, part.subspan(keyBytes), keyBytes);
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

// The same for elements that are alike, from the one with that number on.
void writeAlike(Writer& writer, const Record& record, std::uint32_t& next) {
  const std::size_t most = align4(record.common.size()) + kCommentBytes;
  writer.reserve((record.head.elementCount - next) * most);
  const std::size_t end = writer.position() + kLongestList - most;
  while (next < record.head.elementCount && writer.position() <= end) {
    const std::size_t element = writer.position();
    writer.alike(record, next++, NFTA_SET_ELEM_USERDATA);
    writer.endNest(element);
  }
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
std::size_t writeRecord(Writer& writer, const Record& record, std::uint16_t flags) {
  const auto& head = record.head;
  Bytes elements = record.elements;
  std::uint32_t next = 0;
  std::size_t messages = 0;
  do {
    writer.beginMessage(messageType(record), flags, head.family, 0);
    writer.appendPadded(record.attributes);
    if (head.kind != TransactionKind::kPlain) {
      const auto list = writer.beginNest(NFTA_SET_ELEM_LIST_ELEMENTS);
      if (head.kind == TransactionKind::kKeys) {
        writeKeys(writer, elements, head.keyBytes);
      } else if (head.kind == TransactionKind::kElements) {
        writeReady(writer, elements);
      } else {
        writeAlike(writer, record, next);
        elements = record.elements.subspan(std::size_t{next} * head.keyBytes);
      }
      writer.endNest(list);
    }
    writer.endMessage();
    messages++;
  } while (!elements.empty());
  return messages;
}

constexpr std::size_t kHeaders = sizeof(nlmsghdr) + sizeof(nfgenmsg);

// One of the rules that are alike.
std::size_t writeRule(Writer& writer, const Record& record, std::uint32_t number, std::uint16_t flags) {
  writer.beginMessage(messageType(record), flags, record.head.family, 0);
  writer.alike(record, number, NFTA_RULE_USERDATA);
  writer.endMessage();
  return 1;
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
                                                    std::uint32_t generation, bool echo, HeldComments held,
                                                    std::vector<std::byte> room) {
  EncodedTransaction transaction{.bytes = std::move(room), .recordOf = {}, .unechoed = {}};
  transaction.bytes.clear();
  // A message is shorter than its record; only what is packed becomes more.
  transaction.bytes.reserve(records.size());
  Writer writer(transaction.bytes, firstSequence);
  writer.beginMessage(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  if (generation != 0) {
    const std::uint32_t wire = htonl(generation);
    writer.attribute(NFNL_BATCH_GENID, bytesOf(wire));
  }
  writer.endMessage();

  RunFinder runs(transaction.unechoed);
  std::uint32_t index = 0;
  while (!records.empty()) {
    const auto record = readRecord(records, held);
    if (!record) return std::nullopt;
    const auto& head = record->head;
    const std::uint16_t flags = head.flags | (echo && makesHandle(head.type) ? NLM_F_ECHO : 0);
    const bool rules = head.kind == TransactionKind::kRules;
    if (rules) writer.reserve(head.elementCount * (kHeaders + align4(record->common.size()) + kCommentBytes));
    for (std::uint32_t i = 0; i < (rules ? head.elementCount : 1); i++, index++) {
      const std::size_t messages = rules ? writeRule(writer, *record, i, flags) : writeRecord(writer, *record, flags);
      transaction.recordOf.insert(transaction.recordOf.end(), messages, index);
      if (echo) runs.take(writer, *record, index);
    }
    records = records.subspan(head.length);
  }
  runs.end();
  if (transaction.recordOf.empty() || !held.empty()) return std::nullopt;
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
