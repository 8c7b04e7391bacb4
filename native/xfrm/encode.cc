#include "xfrm/encode.h"

#include <arpa/inet.h>
#include <linux/xfrm.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace xfrmesh {
namespace {

constexpr std::size_t kTailStart = kHeadBytes;

xfrm_address_t addressOf(const std::uint8_t (&bytes)[16]) {
  xfrm_address_t address;
  std::memcpy(&address, bytes, sizeof address);
  return address;
}

bool isZero(const std::uint8_t (&bytes)[16]) {
  return std::all_of(std::begin(bytes), std::end(bytes), [](std::uint8_t byte) { return byte == 0; });
}

xfrm_lifetime_cfg unlimited() {
  xfrm_lifetime_cfg lifetime{};
  lifetime.soft_byte_limit = lifetime.hard_byte_limit = XFRM_INF;
  lifetime.soft_packet_limit = lifetime.hard_packet_limit = XFRM_INF;
  return lifetime;
}

// Reads a structure that travels in the tail in place of one in the message's fixed part.
template <typename T>
void overrideFrom(Bytes tail, std::uint16_t type, T& value) {
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type == type && attribute.payload.size() == sizeof(T)) value = load<T>(attribute.payload);
  }
}

void putTail(MessageWriter& writer, Bytes tail) {
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type < kTailLifetime) writer.rawAttribute(attribute.whole);
  }
}

// struct xfrm_algo and its relatives start with the name, 64 bytes, zero-terminated.
template <typename T>
T algorithmHead(const std::string& name, std::size_t keyBytes) {
  T head{};
  std::memcpy(head.alg_name, name.data(), std::min(name.size(), sizeof head.alg_name - 1));
  head.alg_key_len = static_cast<unsigned int>(keyBytes * 8);
  return head;
}

void putCipher(MessageWriter& writer, const StateRecord& state, const Tables& tables) {
  if (state.cipher == static_cast<std::uint8_t>(Cipher::kNone)) return;
  const Bytes key = state.cipherKey == kNoKey ? Bytes{} : tables.keys()[state.cipherKey].bytes();
  const std::uint32_t spi = htonl(state.spi);
  const Bytes salt = state.salted != 0 ? bytesOf(spi) : Bytes{};
  const std::string& name = tables.algorithms()[state.cipherAlgorithm];
  const std::size_t length = key.size() + salt.size();
  if (state.cipher == static_cast<std::uint8_t>(Cipher::kAead)) {
    auto head = algorithmHead<xfrm_algo_aead>(name, length);
    head.alg_icv_len = state.icvBits;
    writer.attribute(XFRMA_ALG_AEAD, {bytesOf(head), key, salt});
  } else {
    writer.attribute(XFRMA_ALG_CRYPT, {bytesOf(algorithmHead<xfrm_algo>(name, length)), key, salt});
  }
}

void putAuth(MessageWriter& writer, const StateRecord& state, const Tables& tables) {
  if (state.authAlgorithm == kNoAlgorithm) return;
  const Bytes key = state.authKey == kNoKey ? Bytes{} : tables.keys()[state.authKey].bytes();
  const std::string& name = tables.algorithms()[state.authAlgorithm];
  if (state.authTruncateBits == 0) {
    writer.attribute(XFRMA_ALG_AUTH, {bytesOf(algorithmHead<xfrm_algo>(name, key.size())), key});
    return;
  }
  auto head = algorithmHead<xfrm_algo_auth>(name, key.size());
  head.alg_trunc_len = state.authTruncateBits;
  writer.attribute(XFRMA_ALG_AUTH_TRUNC, {bytesOf(head), key});
}

void putState(MessageWriter& writer, const RecordView& record, const Tables& tables) {
  const StateRecord state = record.state();
  xfrm_usersa_info info{};
  info.sel.family = 0;
  overrideFrom(record.tail, kTailSelector, info.sel);
  info.id.daddr = addressOf(state.destination);
  info.id.spi = htonl(state.spi);
  info.id.proto = state.protocol;
  info.saddr = addressOf(state.source);
  info.lft = unlimited();
  overrideFrom(record.tail, kTailLifetime, info.lft);
  info.reqid = state.reqid;
  info.family = state.family;
  info.mode = state.mode;
  info.replay_window = state.replayWindow;
  info.flags = state.flags;
  writer.appendValue(info);
  putCipher(writer, state, tables);
  putAuth(writer, state, tables);
  putTail(writer, record.tail);
}

void putStateId(MessageWriter& writer, const RecordView& record) {
  const StateRecord state = record.state();
  xfrm_usersa_id id{};
  id.daddr = addressOf(state.destination);
  id.spi = htonl(state.spi);
  id.family = state.family;
  id.proto = state.protocol;
  writer.appendValue(id);
  // Only the mark takes part in the identity; of ESP, AH and IPCOMP the kernel ignores the source.
  Bytes tail = record.tail;
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type == XFRMA_MARK) writer.rawAttribute(attribute.whole);
  }
  if (!isZero(state.source)) writer.attributeValue(XFRMA_SRCADDR, addressOf(state.source));
}

xfrm_selector selectorOf(const PolicyRecord& policy) {
  xfrm_selector selector{};
  selector.daddr = addressOf(policy.destination);
  selector.saddr = addressOf(policy.source);
  selector.dport = htons(policy.destinationPort);
  selector.dport_mask = htons(policy.destinationPortMask);
  selector.sport = htons(policy.sourcePort);
  selector.sport_mask = htons(policy.sourcePortMask);
  selector.family = policy.family;
  selector.prefixlen_d = policy.destinationPrefix;
  selector.prefixlen_s = policy.sourcePrefix;
  selector.proto = policy.protocol;
  selector.ifindex = policy.interfaceIndex;
  selector.user = policy.user;
  return selector;
}

void putPolicy(MessageWriter& writer, const RecordView& record) {
  const PolicyRecord policy = record.policy();
  xfrm_userpolicy_info info{};
  info.sel = selectorOf(policy);
  info.lft = unlimited();
  overrideFrom(record.tail, kTailLifetime, info.lft);
  info.priority = policy.priority;
  info.index = policy.index;
  info.dir = policy.direction;
  info.action = policy.action;
  info.flags = policy.flags;
  info.share = policy.share;
  writer.appendValue(info);
  putTail(writer, record.tail);
}

void putPolicyId(MessageWriter& writer, const RecordView& record) {
  const PolicyRecord policy = record.policy();
  xfrm_userpolicy_id id{};
  id.sel = selectorOf(policy);
  id.index = policy.index;
  id.dir = policy.direction;
  writer.appendValue(id);
  Bytes tail = record.tail;
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    const bool identity =
        attribute.type == XFRMA_MARK || attribute.type == XFRMA_IF_ID || attribute.type == XFRMA_POLICY_TYPE;
    if (identity) writer.rawAttribute(attribute.whole);
  }
}

struct Request {
  std::uint16_t type;
  std::uint16_t flags;
};

Request requestOf(Operation operation) {
  switch (operation) {
    case Operation::kAddState:
      return {.type = XFRM_MSG_NEWSA, .flags = NLM_F_CREATE | NLM_F_EXCL};
    case Operation::kUpdateState:
      return {.type = XFRM_MSG_UPDSA, .flags = NLM_F_REPLACE};
    case Operation::kDeleteState:
      return {.type = XFRM_MSG_DELSA, .flags = 0};
    case Operation::kAddPolicy:
      return {.type = XFRM_MSG_NEWPOLICY, .flags = NLM_F_CREATE | NLM_F_EXCL};
    case Operation::kUpdatePolicy:
      return {.type = XFRM_MSG_UPDPOLICY, .flags = NLM_F_REPLACE};
    case Operation::kDeletePolicy:
      return {.type = XFRM_MSG_DELPOLICY, .flags = 0};
  }
  return {.type = 0, .flags = 0};
}

bool isKey(std::uint32_t index, const Tables& tables) { return index == kNoKey || index < tables.keys().size(); }

bool isWellFormed(const StateRecord& state, const Tables& tables) {
  if (state.cipher > static_cast<std::uint8_t>(Cipher::kEncryption)) return false;
  if (state.cipher != static_cast<std::uint8_t>(Cipher::kNone)) {
    if (state.cipherAlgorithm >= tables.algorithms().size() || !isKey(state.cipherKey, tables)) return false;
  }
  if (state.authAlgorithm == kNoAlgorithm) return true;
  return state.authAlgorithm < tables.algorithms().size() && isKey(state.authKey, tables);
}

}  // namespace

Operation RecordView::operation() const { return static_cast<Operation>(head[offsetof(StateRecord, operation)]); }

std::optional<RecordView> takeRecord(Bytes& records, const Tables& tables) {
  if (records.size() < kHeadBytes) return std::nullopt;
  const auto length = load<std::uint32_t>(records);
  if (length < kHeadBytes || length % kRecordAlign != 0 || length > records.size()) return std::nullopt;
  const RecordView record = viewAt(records, 0);
  const auto operation = record.operation();
  if (operation < Operation::kAddState || operation > Operation::kDeletePolicy) return std::nullopt;
  const StateRecord head = record.state();
  if (head.family != AF_INET && head.family != AF_INET6) return std::nullopt;
  const bool isNewState = operation == Operation::kAddState || operation == Operation::kUpdateState;
  if (isNewState && !isWellFormed(head, tables)) return std::nullopt;
  Bytes tail = record.tail;
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
  }
  // Padding to eight leaves four zero bytes at most.
  if (tail.size() > 4 || std::any_of(tail.begin(), tail.end(), [](std::byte byte) { return byte != std::byte{0}; })) {
    return std::nullopt;
  }
  records = records.subspan(length);
  return record;
}

RecordView viewAt(Bytes records, std::size_t start) {
  const auto length = load<std::uint32_t>(records, start);
  return {.head = records.subspan(start, kHeadBytes), .tail = records.subspan(start + kTailStart, length - kTailStart)};
}

std::size_t encodeRecord(const RecordView& record, const Tables& tables, std::uint16_t flags, std::uint32_t sequence,
                         std::span<std::byte> room) {
  const Operation operation = record.operation();
  const Request request = requestOf(operation);
  MessageWriter writer(room, request.type, static_cast<std::uint16_t>(NLM_F_REQUEST | request.flags | flags), sequence);
  switch (operation) {
    case Operation::kAddState:
    case Operation::kUpdateState:
      putState(writer, record, tables);
      break;
    case Operation::kDeleteState:
      putStateId(writer, record);
      break;
    case Operation::kAddPolicy:
    case Operation::kUpdatePolicy:
      putPolicy(writer, record);
      break;
    case Operation::kDeletePolicy:
      putPolicyId(writer, record);
      break;
  }
  return writer.finish();
}

std::size_t encodeGet(const RecordView& record, std::uint16_t flags, std::uint32_t sequence,
                      std::span<std::byte> room) {
  const bool policy = isPolicy(record.operation());
  const std::uint16_t type = policy ? XFRM_MSG_GETPOLICY : XFRM_MSG_GETSA;
  MessageWriter writer(room, type, static_cast<std::uint16_t>(NLM_F_REQUEST | flags), sequence);
  if (policy) {
    putPolicyId(writer, record);
  } else {
    putStateId(writer, record);
  }
  return writer.finish();
}

}  // namespace xfrmesh
