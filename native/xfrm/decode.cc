#include "xfrm/decode.h"

#include <arpa/inet.h>
#include <linux/xfrm.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "xfrm/address.h"

namespace xfrmesh {
namespace {

constexpr std::uint32_t kWholeMask = 0xffffffff;

// Each byte is as the one before it, and the first is zero.
bool isZero(Bytes bytes) {
  if (bytes.empty()) return true;
  return bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

bool isUnlimited(const xfrm_lifetime_cfg& lifetime) {
  return lifetime.soft_byte_limit == XFRM_INF && lifetime.hard_byte_limit == XFRM_INF &&
         lifetime.soft_packet_limit == XFRM_INF && lifetime.hard_packet_limit == XFRM_INF &&
         lifetime.soft_add_expires_seconds == 0 && lifetime.hard_add_expires_seconds == 0 &&
         lifetime.soft_use_expires_seconds == 0 && lifetime.hard_use_expires_seconds == 0;
}

// A state's selector that selects all: what the kernel makes of none, its family filled in.
bool selectsAll(const xfrm_selector& selector, std::uint8_t family) {
  return (selector.family == 0 || selector.family == family) && selector.prefixlen_d == 0 &&
         selector.prefixlen_s == 0 && isZero(bytesOf(selector.daddr)) && isZero(bytesOf(selector.saddr)) &&
         selector.dport == 0 && selector.dport_mask == 0 && selector.sport == 0 && selector.sport_mask == 0 &&
         selector.proto == 0 && selector.ifindex == 0 && selector.user == 0;
}

// Name and key of an algorithm attribute, whose structures differ between the two.
template <typename T>
bool splitAlgorithm(Bytes payload, T& head, std::string_view& name, Bytes& key) {
  if (payload.size() < sizeof(T)) return false;
  head = load<T>(payload);
  key = payload.subspan(sizeof(T));
  const std::size_t keyBytes = (std::size_t{head.alg_key_len} + 7) / 8;
  if (key.size() < keyBytes) return false;
  key = key.first(keyBytes);
  // The kernel ends a name at its last byte, whatever stands there (net/xfrm/xfrm_user.c, verify_one_alg).
  const auto* start = reinterpret_cast<const char*>(payload.data());
  name = std::string_view(start, strnlen(start, sizeof head.alg_name - 1));
  return true;
}

}  // namespace

bool RecordDecoder::decode(const Message& message) {
  switch (message.header.nlmsg_type) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
      return decodeState(message.payload);
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
      return decodePolicy(message.payload);
    default:
      return true;
  }
}

bool RecordDecoder::collect(Bytes payload, std::size_t fixed) {
  if (payload.size() < fixed) return false;
  Bytes attributes = payload.subspan(std::min(align4(fixed), payload.size()));
  present_ = 0;
  Attribute attribute{};
  while (takeAttribute(attributes, attribute)) {
    if (attribute.type >= kTypes) continue;
    present_ |= std::uint64_t{1} << attribute.type;
    found_[attribute.type] = attribute.payload;
  }
  return attributes.size() < sizeof(nlattr);
}

bool RecordDecoder::decodeState(Bytes payload) {
  if (payload.size() < sizeof(xfrm_usersa_info)) return false;
  const auto info = load<xfrm_usersa_info>(payload);
  if (options_.reqid != 0 && info.reqid != options_.reqid) return true;
  if (!collect(payload, sizeof info)) return false;
  finish(beginState(info));
  return true;
}

std::size_t RecordDecoder::beginHead(Bytes head) {
  const std::size_t start = records_.size();
  records_.insert(records_.end(), head.begin(), head.end());
  return start;
}

std::size_t RecordDecoder::beginState(const xfrm_usersa_info& info) {
  StateRecord state{};
  state.operation = Operation::kAddState;
  state.family = static_cast<std::uint8_t>(info.family);
  state.protocol = info.id.proto;
  state.mode = info.mode;
  copyAddress(state.destination, info.id.daddr, state.family);
  copyAddress(state.source, info.saddr, state.family);
  state.spi = ntohl(info.id.spi);
  state.reqid = info.reqid;
  state.flags = info.flags;
  state.replayWindow = info.replay_window;
  state.cipherKey = kNoKey;
  state.authKey = kNoKey;
  state.authAlgorithm = kNoAlgorithm;
  putCipher(state);
  putAuth(state);

  const std::size_t start = beginHead(bytesOf(state));
  putTail();
  if (!isUnlimited(info.lft)) putValue(kTailLifetime, info.lft);
  if (!selectsAll(info.sel, state.family)) putValue(kTailSelector, info.sel);
  if (options_.details) {
    putValue(kTailCurrent, info.curlft);
    putValue(kTailStatistics, info.stats);
    if (info.seq != 0) putValue(kTailSequence, info.seq);
  }
  return start;
}

void RecordDecoder::putCipher(StateRecord& state) {
  std::string_view name;
  Bytes key;
  xfrm_algo_aead aead{};
  xfrm_algo encryption{};
  if (splitAlgorithm(found(XFRMA_ALG_AEAD), aead, name, key)) {
    state.cipher = static_cast<std::uint8_t>(Cipher::kAead);
    state.icvBits = static_cast<std::uint16_t>(aead.alg_icv_len);
  } else if (splitAlgorithm(found(XFRMA_ALG_CRYPT), encryption, name, key)) {
    state.cipher = static_cast<std::uint8_t>(Cipher::kEncryption);
  } else {
    return;
  }
  state.cipherAlgorithm = tables_.internAlgorithm(name);
  if (key.empty()) return;
  if (isZero(key)) {
    state.cipherKey = kWithheldKey;
    return;
  }
  const std::uint32_t spi = htonl(state.spi);
  const Bytes salt = bytesOf(spi);
  const bool salted = aead.alg_key_len != 0 && key.size() > salt.size() &&
                      std::equal(salt.begin(), salt.end(), key.end() - static_cast<std::ptrdiff_t>(salt.size()));
  state.salted = salted ? 1 : 0;
  state.cipherKey = tables_.internKey(salted ? key.first(key.size() - salt.size()) : key);
}

void RecordDecoder::putAuth(StateRecord& state) {
  std::string_view name;
  Bytes key;
  xfrm_algo_auth truncated{};
  xfrm_algo plain{};
  if (splitAlgorithm(found(XFRMA_ALG_AUTH_TRUNC), truncated, name, key)) {
    state.authTruncateBits = static_cast<std::uint16_t>(truncated.alg_trunc_len);
  } else if (!splitAlgorithm(found(XFRMA_ALG_AUTH), plain, name, key)) {
    return;
  }
  state.authAlgorithm = tables_.internAlgorithm(name);
  if (key.empty()) return;
  state.authKey = isZero(key) ? kWithheldKey : tables_.internKey(key);
}

// Of the attribute put last, of replay: the window was asked for and stays, the counters moved since.
void RecordDecoder::forgetReplay(std::size_t size) {
  std::byte* const at = records_.data() + records_.size() - align4(size);
  auto replay = load<xfrm_replay_state_esn>(Bytes(at, size));
  replay.oseq = replay.seq = replay.oseq_hi = replay.seq_hi = 0;
  std::memset(at, 0, size);
  std::memcpy(at, &replay, sizeof replay);
}

void RecordDecoder::putTail() {
  for (std::uint64_t left = present_; left != 0; left &= left - 1) {
    const auto type = static_cast<std::uint16_t>(std::countr_zero(left));
    const Bytes payload = found_[type];
    switch (type) {
      case XFRMA_ALG_AEAD:
      case XFRMA_ALG_CRYPT:
      case XFRMA_ALG_AUTH:
      case XFRMA_ALG_AUTH_TRUNC:
      case XFRMA_SA:
      case XFRMA_POLICY:
      case XFRMA_PAD:
        continue;  // in the head
      case XFRMA_LASTUSED:
      case XFRMA_REPLAY_VAL:
        if (!options_.details) continue;
        break;
      case XFRMA_MARK:
      case XFRMA_POLICY_TYPE:
      case XFRMA_IF_ID:
        if (isZero(payload)) continue;  // as good as absent
        break;
      case XFRMA_SET_MARK_MASK:
        if (payload.size() == sizeof kWholeMask && load<std::uint32_t>(payload) == kWholeMask) continue;  // likewise
        break;
      case XFRMA_REPLAY_ESN_VAL:
        putAttribute(type, payload);
        if (!options_.details && payload.size() >= sizeof(xfrm_replay_state_esn)) forgetReplay(payload.size());
        continue;
      default:
        break;
    }
    putAttribute(type, payload);
  }
}

bool RecordDecoder::wantsPolicy() const {
  if (options_.reqid == 0) return true;
  Bytes templates = found(XFRMA_TMPL);
  while (templates.size() >= sizeof(xfrm_user_tmpl)) {
    if (load<xfrm_user_tmpl>(templates).reqid == options_.reqid) return true;
    templates = templates.subspan(sizeof(xfrm_user_tmpl));
  }
  return false;
}

bool RecordDecoder::decodePolicy(Bytes payload) {
  if (payload.size() < sizeof(xfrm_userpolicy_info)) return false;
  const auto info = load<xfrm_userpolicy_info>(payload);
  if (!collect(payload, sizeof info)) return false;
  if (wantsPolicy()) finish(beginPolicy(info));
  return true;
}

std::size_t RecordDecoder::beginPolicy(const xfrm_userpolicy_info& info) {
  PolicyRecord policy{};
  policy.operation = Operation::kAddPolicy;
  policy.family = static_cast<std::uint8_t>(info.sel.family);
  policy.direction = info.dir;
  policy.action = info.action;
  // Whole, as it was given: the kernel finds a policy by all bytes of its selector.
  copyAddress(policy.destination, info.sel.daddr, AF_UNSPEC);
  copyAddress(policy.source, info.sel.saddr, AF_UNSPEC);
  policy.destinationPort = ntohs(info.sel.dport);
  policy.destinationPortMask = ntohs(info.sel.dport_mask);
  policy.sourcePort = ntohs(info.sel.sport);
  policy.sourcePortMask = ntohs(info.sel.sport_mask);
  policy.destinationPrefix = info.sel.prefixlen_d;
  policy.sourcePrefix = info.sel.prefixlen_s;
  policy.protocol = info.sel.proto;
  policy.flags = info.flags;
  policy.interfaceIndex = info.sel.ifindex;
  policy.priority = info.priority;
  policy.index = options_.details ? info.index : 0;
  policy.share = info.share;
  policy.user = info.sel.user;

  const std::size_t start = beginHead(bytesOf(policy));
  putTail();
  if (!isUnlimited(info.lft)) putValue(kTailLifetime, info.lft);
  if (options_.details) putValue(kTailCurrent, info.curlft);
  return start;
}

void RecordDecoder::putAttribute(std::uint16_t type, Bytes payload) {
  const nlattr header{.nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), .nla_type = type};
  const std::size_t start = records_.size();
  records_.resize(start + sizeof header + align4(payload.size()));
  std::memcpy(records_.data() + start, &header, sizeof header);
  if (!payload.empty()) std::memcpy(records_.data() + start + sizeof header, payload.data(), payload.size());
}

void RecordDecoder::finish(std::size_t start) {
  records_.resize(align8(records_.size()));
  const auto length = static_cast<std::uint32_t>(records_.size() - start);
  std::memcpy(records_.data() + start, &length, sizeof length);
}

}  // namespace xfrmesh
