// What the kernel multicasts, put together as it does (net/xfrm/xfrm_user.c), through the decoder.
#include <arpa/inet.h>

#include <cstring>

#include "test/check.h"
#include "test/xfrm_records.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace xfrmesh::test {
namespace {

constexpr std::size_t kRoom = 4096;

// The record of an event, or nothing if it is refused.
std::vector<std::byte> decoded(std::uint16_t type, Bytes payload, bool& accepted) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = true});
  Message message{};
  message.header.nlmsg_type = type;
  message.payload = payload;
  accepted = decoder.decodeEvent(message);
  return decoder.records();
}

// One record, its length right, of that event.
void checkEvent(const std::vector<std::byte>& record, Event event) {
  CHECK(record.size() >= kHeadBytes);
  if (record.size() < kHeadBytes) return;
  CHECK_EQ(load<std::uint32_t>(record), record.size());
  CHECK(load<StateRecord>(record).operation == static_cast<Operation>(event));
}

// The payload of the tail's attribute of that type.
Bytes tailOf(const std::vector<std::byte>& record, std::uint16_t type) {
  Bytes tail = Bytes(record).subspan(kHeadBytes);
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type == type) return attribute.payload;
  }
  return {};
}

// Decodes the event whole, checks it, and then cut anywhere: refused, or read within bounds.
std::vector<std::byte> decodeAndCut(std::uint16_t type, Bytes payload, Event event) {
  bool accepted = false;
  auto record = decoded(type, payload, accepted);
  CHECK(accepted);
  checkEvent(record, event);
  for (std::size_t size = 0; size < payload.size(); size++) {
    const std::vector<std::byte> part(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(size));
    const auto cut = decoded(type, part, accepted);
    CHECK(accepted || cut.empty());
  }
  return record;
}

Bytes payloadOf(std::span<std::byte> room, std::size_t size) {
  return Bytes(room).first(size).subspan(sizeof(nlmsghdr));
}

// As the kernel has it on its stack: of IPv4 only a4 is set.
xfrm_address_t onStack(std::uint32_t address) {
  xfrm_address_t made;
  std::memset(&made, 0xff, sizeof made);
  made.a4 = htonl(address);
  return made;
}

bool isIpv4(const std::uint8_t (&address)[16], std::uint32_t wanted) {
  const std::uint32_t words[4] = {htonl(wanted), 0, 0, 0};
  return std::memcmp(address, words, sizeof words) == 0;
}

xfrm_usersa_info stateInfo() {
  xfrm_usersa_info info{};
  info.family = AF_INET;
  info.id.spi = htonl(0x1234);
  info.id.proto = IPPROTO_ESP;
  info.reqid = 7;
  return info;
}

}  // namespace

TEST(deleted_state_is_read_from_its_attribute) {
  std::vector<std::byte> room(kRoom);
  MessageWriter writer(room, XFRM_MSG_DELSA, 0, 0);
  writer.appendValue(xfrm_usersa_id{});
  writer.attributeValue(XFRMA_SA, stateInfo());
  const auto record = decodeAndCut(XFRM_MSG_DELSA, payloadOf(room, writer.finish()), Event::kStateDeleted);
  CHECK_EQ(load<StateRecord>(record).spi, 0x1234U);
  CHECK_EQ(load<StateRecord>(record).reqid, 7U);
  CHECK(tailOf(record, XFRMA_SA).empty());
}

TEST(deleted_policy_is_read_from_its_attribute) {
  std::vector<std::byte> room(kRoom);
  MessageWriter writer(room, XFRM_MSG_DELPOLICY, 0, 0);
  writer.appendValue(xfrm_userpolicy_id{});
  xfrm_userpolicy_info info{};
  info.priority = 9;
  writer.attributeValue(XFRMA_POLICY, info);
  writer.attributeValue(XFRMA_TMPL, xfrm_user_tmpl{});
  const auto record = decodeAndCut(XFRM_MSG_DELPOLICY, payloadOf(room, writer.finish()), Event::kPolicyDeleted);
  CHECK_EQ(load<PolicyRecord>(record).priority, 9U);
  CHECK_EQ(tailOf(record, XFRMA_TMPL).size(), sizeof(xfrm_user_tmpl));
}

TEST(expiry_says_whether_it_was_hard) {
  for (std::uint8_t hard = 0; hard <= 1; hard++) {
    xfrm_user_expire state{};
    state.state = stateInfo();
    state.hard = hard;
    const auto record = decodeAndCut(XFRM_MSG_EXPIRE, bytesOf(state), Event::kStateExpired);
    CHECK_EQ(load<std::uint32_t>(tailOf(record, kTailHard)), hard);
    xfrm_user_polexpire policy{};
    policy.hard = hard;
    const auto other = decodeAndCut(XFRM_MSG_POLEXPIRE, bytesOf(policy), Event::kPolicyExpired);
    CHECK_EQ(load<std::uint32_t>(tailOf(other, kTailHard)), hard);
  }
}

TEST(mapping_has_both_ends_in_host_order) {
  xfrm_user_mapping mapping{};
  mapping.id.family = AF_INET;
  mapping.id.proto = IPPROTO_ESP;
  mapping.id.spi = htonl(0x1234);
  mapping.reqid = 7;
  mapping.old_saddr.a4 = htonl(0xc0000201);
  mapping.new_saddr.a4 = htonl(0xc0000202);
  mapping.old_sport = htons(4500);
  mapping.new_sport = htons(31234);
  const auto record = decodeAndCut(XFRM_MSG_MAPPING, bytesOf(mapping), Event::kMapping);
  const auto state = load<StateRecord>(record);
  CHECK_EQ(state.spi, 0x1234U);
  CHECK_EQ(state.reqid, 7U);
  CHECK_EQ(state.source[3], 1);
  const auto tail = load<MappingTail>(tailOf(record, kTailMapping));
  CHECK_EQ(tail.source[3], 2);
  CHECK_EQ(tail.port, 31234);
  CHECK_EQ(tail.knownPort, 4500);
}

TEST(acquire_has_the_flow_the_policy_and_what_is_wanted) {
  std::vector<std::byte> room(kRoom);
  MessageWriter writer(room, XFRM_MSG_ACQUIRE, 0, 0);
  xfrm_user_acquire wanted{};
  wanted.id.daddr.a4 = htonl(0xc0000202);
  wanted.id.proto = IPPROTO_ESP;
  wanted.saddr.a4 = htonl(0xc0000201);
  wanted.sel.proto = IPPROTO_UDP;
  wanted.policy.dir = XFRM_POLICY_OUT;
  wanted.seq = 3;
  writer.appendValue(wanted);
  writer.attributeValue(XFRMA_TMPL, xfrm_user_tmpl{});
  const auto record = decodeAndCut(XFRM_MSG_ACQUIRE, payloadOf(room, writer.finish()), Event::kAcquire);
  const auto tail = load<AcquireTail>(tailOf(record, kTailAcquire));
  CHECK_EQ(tail.destination[3], 2);
  CHECK_EQ(tail.source[3], 1);
  CHECK_EQ(tail.sequence, 3U);
  CHECK_EQ(tail.protocol, IPPROTO_ESP);
  CHECK_EQ(load<xfrm_selector>(tailOf(record, kTailSelector)).proto, IPPROTO_UDP);
  CHECK_EQ(load<PolicyRecord>(record).direction, XFRM_POLICY_OUT);
}

TEST(of_ipv4_addresses_nothing_else_is_taken_from_the_kernels_stack) {
  xfrm_user_mapping mapping{};
  mapping.id.family = AF_INET;
  mapping.id.daddr = onStack(0xc0000201);
  mapping.old_saddr = onStack(0xc0000202);
  mapping.new_saddr = onStack(0xc0000203);
  const auto moved = decodeAndCut(XFRM_MSG_MAPPING, bytesOf(mapping), Event::kMapping);
  CHECK(isIpv4(load<StateRecord>(moved).destination, 0xc0000201));
  CHECK(isIpv4(load<StateRecord>(moved).source, 0xc0000202));
  CHECK(isIpv4(load<MappingTail>(tailOf(moved, kTailMapping)).source, 0xc0000203));

  xfrm_user_expire larval{};
  larval.state = stateInfo();
  larval.state.id.daddr = onStack(0xc0000201);
  larval.state.saddr = onStack(0xc0000202);
  const auto expired = decodeAndCut(XFRM_MSG_EXPIRE, bytesOf(larval), Event::kStateExpired);
  CHECK(isIpv4(load<StateRecord>(expired).destination, 0xc0000201));
  CHECK(isIpv4(load<StateRecord>(expired).source, 0xc0000202));

  // The family is that of the template, or without one the flow's.
  for (const bool templated : {true, false}) {
    std::vector<std::byte> room(kRoom);
    MessageWriter writer(room, XFRM_MSG_ACQUIRE, 0, 0);
    xfrm_user_acquire wanted{};
    wanted.id.daddr = onStack(0xc0000201);
    wanted.id.proto = IPPROTO_ESP;
    wanted.saddr = onStack(0xc0000202);
    wanted.sel.family = templated ? AF_INET6 : AF_INET;
    writer.appendValue(wanted);
    xfrm_user_tmpl made{};
    made.id.proto = IPPROTO_ESP;
    made.family = AF_INET;
    if (templated) writer.attributeValue(XFRMA_TMPL, made);
    const auto record = decodeAndCut(XFRM_MSG_ACQUIRE, payloadOf(room, writer.finish()), Event::kAcquire);
    const auto tail = load<AcquireTail>(tailOf(record, kTailAcquire));
    CHECK_EQ(tail.family, AF_INET);
    CHECK(isIpv4(tail.destination, 0xc0000201));
    CHECK(isIpv4(tail.source, 0xc0000202));
  }
}

TEST(of_ipv6_addresses_all_is_taken) {
  xfrm_user_mapping mapping{};
  mapping.id.family = AF_INET6;
  mapping.new_saddr = onStack(0x20010db8);
  const auto record = decodeAndCut(XFRM_MSG_MAPPING, bytesOf(mapping), Event::kMapping);
  const auto tail = load<MappingTail>(tailOf(record, kTailMapping));
  CHECK_EQ(std::memcmp(tail.source, mapping.new_saddr.a6, sizeof tail.source), 0);
}

TEST(flush_of_states_says_of_which_protocol) {
  const auto record =
      decodeAndCut(XFRM_MSG_FLUSHSA, bytesOf(xfrm_usersa_flush{.proto = IPPROTO_AH}), Event::kStatesFlushed);
  CHECK_EQ(load<StateRecord>(record).protocol, IPPROTO_AH);
}

}  // namespace xfrmesh::test
