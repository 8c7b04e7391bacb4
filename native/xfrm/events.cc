// What the kernel multicasts of its SAD and SPD (net/xfrm/xfrm_user.c, xfrm_send_*), as records.
#include <arpa/inet.h>
#include <linux/xfrm.h>

#include "xfrm/address.h"
#include "xfrm/decode.h"

namespace xfrmesh {
namespace {

// Of a message's payload, or nothing where it is too short.
template <typename T>
bool loadFixed(Bytes payload, T& fixed) {
  if (payload.size() < sizeof fixed) return false;
  fixed = load<T>(payload);
  return true;
}

// Of the SA that an acquire wants: it is not in the message, but in the template that asks for it.
std::uint16_t familyWanted(Bytes templates, const xfrm_user_acquire& wanted) {
  for (; templates.size() >= sizeof(xfrm_user_tmpl); templates = templates.subspan(sizeof(xfrm_user_tmpl))) {
    const auto found = load<xfrm_user_tmpl>(templates);
    if (found.id.proto == wanted.id.proto) return found.family;
  }
  return wanted.sel.family;
}

}  // namespace

bool RecordDecoder::decodeEvent(const Message& message) {
  switch (message.header.nlmsg_type) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA: {
      const std::size_t start = records_.size();
      if (!decodeState(message.payload)) return false;
      if (message.header.nlmsg_type == XFRM_MSG_UPDSA) setEvent(start, Event::kStateUpdated);
      return true;
    }
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY: {
      const std::size_t start = records_.size();
      if (!decodePolicy(message.payload)) return false;
      if (message.header.nlmsg_type == XFRM_MSG_UPDPOLICY) setEvent(start, Event::kPolicyUpdated);
      return true;
    }
    case XFRM_MSG_DELSA:
      return decodeDeletedState(message.payload);
    case XFRM_MSG_DELPOLICY:
      return decodeDeletedPolicy(message.payload);
    case XFRM_MSG_FLUSHSA:
      return decodeFlushedStates(message.payload);
    case XFRM_MSG_FLUSHPOLICY:
      return decodeFlushedPolicies(message.payload);
    case XFRM_MSG_EXPIRE:
      return decodeExpiredState(message.payload);
    case XFRM_MSG_POLEXPIRE:
      return decodeExpiredPolicy(message.payload);
    case XFRM_MSG_MAPPING:
      return decodeMapping(message.payload);
    case XFRM_MSG_ACQUIRE:
      return decodeAcquire(message.payload);
    default:
      return true;
  }
}

void RecordDecoder::putLost() {
  const std::size_t start = beginHead(bytesOf(StateRecord{}));
  finish(start);
  setEvent(start, Event::kLost);
}

void RecordDecoder::setEvent(std::size_t start, Event event) {
  if (start == records_.size()) return;  // filtered out
  records_[start + offsetof(StateRecord, operation)] = static_cast<std::byte>(event);
}

// The identity stands in front, the object as it was in an attribute.
bool RecordDecoder::decodeDeletedState(Bytes payload) {
  xfrm_usersa_info info{};
  if (!collect(payload, sizeof(xfrm_usersa_id)) || !loadFixed(found(XFRMA_SA), info)) return false;
  const std::size_t start = beginState(info);
  finish(start);
  setEvent(start, Event::kStateDeleted);
  return true;
}

bool RecordDecoder::decodeDeletedPolicy(Bytes payload) {
  xfrm_userpolicy_info info{};
  if (!collect(payload, sizeof(xfrm_userpolicy_id)) || !loadFixed(found(XFRMA_POLICY), info)) return false;
  const std::size_t start = beginPolicy(info);
  finish(start);
  setEvent(start, Event::kPolicyDeleted);
  return true;
}

bool RecordDecoder::decodeExpiredState(Bytes payload) {
  xfrm_user_expire expired{};
  if (!loadFixed(payload, expired) || !collect(payload, sizeof expired)) return false;
  const std::size_t start = beginState(expired.state);
  putValue(kTailHard, std::uint32_t{expired.hard});
  finish(start);
  setEvent(start, Event::kStateExpired);
  return true;
}

bool RecordDecoder::decodeExpiredPolicy(Bytes payload) {
  xfrm_user_polexpire expired{};
  if (!loadFixed(payload, expired) || !collect(payload, sizeof expired)) return false;
  const std::size_t start = beginPolicy(expired.pol);
  putValue(kTailHard, std::uint32_t{expired.hard});
  finish(start);
  setEvent(start, Event::kPolicyExpired);
  return true;
}

bool RecordDecoder::decodeFlushedStates(Bytes payload) {
  xfrm_usersa_flush flushed{};
  if (!loadFixed(payload, flushed)) return false;
  StateRecord state{};
  state.protocol = flushed.proto;
  const std::size_t start = beginHead(bytesOf(state));
  finish(start);
  setEvent(start, Event::kStatesFlushed);
  return true;
}

bool RecordDecoder::decodeFlushedPolicies(Bytes payload) {
  if (!collect(payload, 0)) return false;
  const std::size_t start = beginHead(bytesOf(PolicyRecord{}));
  putTail();
  finish(start);
  setEvent(start, Event::kPoliciesFlushed);
  return true;
}

bool RecordDecoder::decodeMapping(Bytes payload) {
  xfrm_user_mapping mapping{};
  if (!loadFixed(payload, mapping)) return false;
  StateRecord state{};
  state.family = static_cast<std::uint8_t>(mapping.id.family);
  state.protocol = mapping.id.proto;
  copyAddress(state.destination, mapping.id.daddr, state.family);
  copyAddress(state.source, mapping.old_saddr, state.family);
  state.spi = ntohl(mapping.id.spi);
  state.reqid = mapping.reqid;
  MappingTail tail{};
  copyAddress(tail.source, mapping.new_saddr, state.family);
  tail.port = ntohs(mapping.new_sport);
  tail.knownPort = ntohs(mapping.old_sport);
  const std::size_t start = beginHead(bytesOf(state));
  putValue(kTailMapping, tail);
  finish(start);
  setEvent(start, Event::kMapping);
  return true;
}

bool RecordDecoder::decodeAcquire(Bytes payload) {
  xfrm_user_acquire wanted{};
  if (!loadFixed(payload, wanted) || !collect(payload, sizeof wanted)) return false;
  const std::uint16_t family = familyWanted(found(XFRMA_TMPL), wanted);
  AcquireTail tail{};
  copyAddress(tail.destination, wanted.id.daddr, family);
  copyAddress(tail.source, wanted.saddr, family);
  tail.sequence = wanted.seq;
  tail.protocol = wanted.id.proto;
  tail.family = family;
  const std::size_t start = beginPolicy(wanted.policy);
  putValue(kTailSelector, wanted.sel);
  putValue(kTailAcquire, tail);
  finish(start);
  setEvent(start, Event::kAcquire);
  return true;
}

}  // namespace xfrmesh
