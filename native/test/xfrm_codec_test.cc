// Records to messages and back, without a kernel.
#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "test/check.h"
#include "test/xfrm_records.h"
#include "xfrm/batch.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace xfrmesh::test {
namespace {

constexpr std::array<std::uint8_t, 16> kKey{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr std::string_view kGcm = "rfc4106(gcm(aes))";

Tables tablesOfOneKey() {
  Tables tables;
  tables.addKey(bytesOf(kKey));
  tables.addAlgorithm(kGcm);
  return tables;
}

StateRecord gcmState(std::uint32_t spi) {
  StateRecord state = stateOf(Operation::kAddState, spi);
  state.cipher = static_cast<std::uint8_t>(Cipher::kAead);
  state.icvBits = 64;
  state.salted = 1;
  state.cipherKey = 0;
  return state;
}

bool isRecord(const std::vector<std::byte>& bytes, const Tables& tables) {
  Bytes rest = bytes;
  return takeRecord(rest, tables).has_value();
}

template <typename Head>
bool isRecord(const Head& head, const Tables& tables) {
  return isRecord(Records().add(head).bytes(), tables);
}

std::vector<std::byte> encoded(const std::vector<std::byte>& record, const Tables& tables) {
  Bytes rest = record;
  const auto view = takeRecord(rest, tables);
  std::vector<std::byte> message(4096);
  message.resize(view ? encodeRecord(*view, tables, 0, 1, message) : 0);
  return message;
}

Message messageOf(const std::vector<std::byte>& bytes) {
  Bytes rest = bytes;
  Message message{};
  CHECK(takeMessage(rest, message));
  CHECK(rest.empty());
  return message;
}

Bytes attributeOf(Bytes attributes, std::uint16_t type) {
  Attribute attribute{};
  while (takeAttribute(attributes, attribute)) {
    if (attribute.type == type) return attribute.payload;
  }
  return {};
}

}  // namespace

TEST(record_of_a_wrong_length_is_refused) {
  const Tables tables = tablesOfOneKey();
  std::vector<std::byte> bytes = Records().add(gcmState(1)).bytes();
  CHECK(isRecord(bytes, tables));
  for (const std::uint32_t length : {0U, 8U, 64U, 71U, 73U, 76U, 80U, 0x80000048U, 0xfffffff8U}) {
    std::memcpy(bytes.data(), &length, sizeof length);
    CHECK(!isRecord(bytes, tables));
  }
  bytes.resize(kHeadBytes - 1);
  CHECK(!isRecord(bytes, tables));
  CHECK(!isRecord(std::vector<std::byte>{}, tables));
}

TEST(record_of_an_unknown_operation_or_family_is_refused) {
  const Tables tables = tablesOfOneKey();
  for (const int operation : {0, 7, 255}) {
    CHECK(!isRecord(policyOf(static_cast<Operation>(operation), 1), tables));
  }
  PolicyRecord policy = policyOf(Operation::kAddPolicy, 1);
  policy.family = AF_UNSPEC;
  CHECK(!isRecord(policy, tables));
  policy.family = AF_INET6;
  CHECK(isRecord(policy, tables));
}

TEST(record_with_an_index_beyond_the_tables_is_refused) {
  const Tables tables = tablesOfOneKey();
  StateRecord state = gcmState(1);
  state.cipherKey = 1;
  CHECK(!isRecord(state, tables));
  state.cipherKey = kWithheldKey;  // shown by the kernel, and not to be given to it
  CHECK(!isRecord(state, tables));
  state.cipherKey = kNoKey;
  CHECK(isRecord(state, tables));
  state.cipherAlgorithm = 1;
  CHECK(!isRecord(state, tables));
  state = gcmState(1);
  state.cipher = 3;
  CHECK(!isRecord(state, tables));
  state = gcmState(1);
  state.authAlgorithm = 1;
  CHECK(!isRecord(state, tables));
  state.authAlgorithm = 0;
  state.authKey = 1;
  CHECK(!isRecord(state, tables));
  // A deletion names no key.
  state.operation = Operation::kDeleteState;
  CHECK(isRecord(state, tables));
}

TEST(record_with_a_malformed_tail_is_refused) {
  const Tables tables;
  const auto tailed = [](std::initializer_list<std::uint8_t> tail) {
    std::vector<std::byte> bytes = Records().add(policyOf(Operation::kAddPolicy, 1)).bytes();
    for (const std::uint8_t byte : tail) bytes.push_back(static_cast<std::byte>(byte));
    const auto length = static_cast<std::uint32_t>(bytes.size());
    std::memcpy(bytes.data(), &length, sizeof length);
    return bytes;
  };
  CHECK(isRecord(tailed({8, 0, XFRMA_IF_ID, 0, 1, 0, 0, 0}), tables));
  CHECK(isRecord(tailed({4, 0, XFRMA_IF_ID, 0, 0, 0, 0, 0}), tables));
  CHECK(!isRecord(tailed({4, 0, XFRMA_IF_ID, 0, 0, 0, 0, 1}), tables));
  CHECK(!isRecord(tailed({9, 0, XFRMA_IF_ID, 0, 1, 0, 0, 0}), tables));
  CHECK(!isRecord(tailed({3, 0, XFRMA_IF_ID, 0, 1, 0, 0, 0}), tables));
  CHECK(!isRecord(tailed({0, 0, 0, 0, 0, 0, 0, 0}), tables));
}

TEST(batch_of_records_is_parsed_whole_or_refused) {
  Records records;
  for (std::uint32_t i = 0; i < 10; i++) records.add(policyOf(Operation::kAddPolicy, i));
  XfrmBatch batch(records.bytes(), {});
  CHECK(batch.parse());
  CHECK_EQ(batch.size(), 10U);
  XfrmBatch cut(Bytes(records.bytes()).first(records.bytes().size() - 8), {});
  CHECK(!cut.parse());
}

TEST(salt_of_an_aead_key_is_the_spi) {
  const Tables tables = tablesOfOneKey();
  const auto bytes = encoded(Records().add(gcmState(0x01020304)).bytes(), tables);
  const Message message = messageOf(bytes);
  CHECK_EQ(message.header.nlmsg_type, XFRM_MSG_NEWSA);
  CHECK_EQ(message.header.nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
  const Bytes aead = attributeOf(message.payload.subspan(sizeof(xfrm_usersa_info)), XFRMA_ALG_AEAD);
  CHECK_EQ(aead.size(), sizeof(xfrm_algo_aead) + kKey.size() + 4);
  const auto head = load<xfrm_algo_aead>(aead);
  CHECK_EQ(head.alg_key_len, (kKey.size() + 4) * 8);
  CHECK_EQ(head.alg_icv_len, 64U);
  CHECK(std::string_view(head.alg_name) == kGcm);
  const Bytes key = aead.subspan(sizeof head);
  CHECK(std::equal(key.begin(), key.begin() + kKey.size(), bytesOf(kKey).begin()));
  CHECK_EQ(ntohl(load<std::uint32_t>(key, kKey.size())), 0x01020304U);
}

TEST(state_comes_back_from_its_message_as_the_record_it_was) {
  Tables tables = tablesOfOneKey();
  const xfrm_mark mark{.v = 5, .m = 0xff};
  xfrm_lifetime_cfg limits{};
  limits.hard_byte_limit = 1000;
  xfrm_selector selector{};
  selector.family = AF_INET;
  selector.prefixlen_d = 16;
  for (const bool details : {false, true}) {
    Records records;
    records.add(gcmState(9)).attribute(XFRMA_MARK, bytesOf(mark));
    records.attribute(kTailLifetime, bytesOf(limits)).attribute(kTailSelector, bytesOf(selector));
    const auto message = encoded(records.bytes(), tables);
    RecordDecoder decoder(tables, {.reqid = 0, .details = details});
    CHECK(decoder.decode(messageOf(message)));
    const bool same = decoder.records() == records.bytes();
    CHECK(same != details);  // details come on top
    CHECK_EQ(tables.keys().size(), std::size_t{1});
    CHECK_EQ(tables.algorithms().size(), std::size_t{1});
  }
}

TEST(policy_comes_back_from_its_message_as_the_record_it_was) {
  Tables tables;
  xfrm_user_tmpl templ{};
  templ.family = AF_INET;
  templ.reqid = 7;
  PolicyRecord policy = policyOf(Operation::kAddPolicy, 300);
  policy.destinationPort = 4789;
  policy.destinationPortMask = 0xffff;
  policy.priority = 12;
  policy.flags = XFRM_POLICY_LOCALOK;
  Records records;
  records.add(policy).attribute(XFRMA_TMPL, bytesOf(templ)).attribute(XFRMA_IF_ID, bytesOf(std::uint32_t{3}));
  const auto message = encoded(records.bytes(), tables);
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  CHECK(decoder.decode(messageOf(message)));
  CHECK(decoder.records() == records.bytes());
}

TEST(counters_of_replay_are_details_and_its_window_is_none) {
  Tables tables = tablesOfOneKey();
  // Of a bitmap all words but a byte are there.
  std::array<std::byte, sizeof(xfrm_replay_state_esn) + 7> had{};
  had.fill(std::byte{0xff});
  auto kept = had;
  std::fill(kept.begin() + sizeof(xfrm_replay_state_esn), kept.end(), std::byte{0});
  for (const std::size_t counter :
       {offsetof(xfrm_replay_state_esn, oseq), offsetof(xfrm_replay_state_esn, seq),
        offsetof(xfrm_replay_state_esn, oseq_hi), offsetof(xfrm_replay_state_esn, seq_hi)}) {
    std::memset(kept.data() + counter, 0, sizeof(std::uint32_t));
  }

  Records records;
  records.add(gcmState(9)).attribute(XFRMA_REPLAY_ESN_VAL, had);
  const auto message = encoded(records.bytes(), tables);
  for (const bool details : {false, true}) {
    RecordDecoder decoder(tables, {.reqid = 0, .details = details});
    CHECK(decoder.decode(messageOf(message)));
    const Bytes shown = attributeOf(Bytes(decoder.records()).subspan(kHeadBytes), XFRMA_REPLAY_ESN_VAL);
    CHECK(std::ranges::equal(shown, details ? had : kept));
  }
}

TEST(what_one_message_had_the_next_has_not) {
  Tables tables = tablesOfOneKey();
  const xfrm_mark mark{.v = 5, .m = 0xff};
  const auto first = encoded(Records().add(gcmState(9)).attribute(XFRMA_MARK, bytesOf(mark)).bytes(), tables);
  const Records second = Records().add(stateOf(Operation::kAddState, 10));
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  CHECK(decoder.decode(messageOf(first)));
  decoder.clear();
  CHECK(decoder.decode(messageOf(encoded(second.bytes(), tables))));
  CHECK(decoder.records() == second.bytes());
}

TEST(decoder_takes_only_the_reqid_asked_for) {
  Tables tables = tablesOfOneKey();
  xfrm_user_tmpl templ{};
  templ.reqid = 8;
  const auto state = encoded(Records().add(gcmState(9)).bytes(), tables);
  const auto policy =
      encoded(Records().add(policyOf(Operation::kAddPolicy, 1)).attribute(XFRMA_TMPL, bytesOf(templ)).bytes(), tables);
  const auto bare = encoded(Records().add(policyOf(Operation::kAddPolicy, 1)).bytes(), tables);
  const auto found = [&](const std::vector<std::byte>& message, std::uint32_t reqid) {
    RecordDecoder decoder(tables, {.reqid = reqid, .details = false});
    CHECK(decoder.decode(messageOf(message)));
    return !decoder.records().empty();
  };
  CHECK(found(state, 0) && found(state, 7) && !found(state, 8));
  CHECK(found(policy, 0) && found(policy, 8) && !found(policy, 7));
  CHECK(found(bare, 0) && !found(bare, 7));
}

TEST(key_of_zeros_is_withheld_and_no_key_of_zeros) {
  Tables tables;
  tables.addKey(bytesOf(std::array<std::uint8_t, 20>{}));
  tables.addAlgorithm(kGcm);
  StateRecord state = gcmState(9);
  state.salted = 0;
  const auto message = encoded(Records().add(state).bytes(), tables);
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  CHECK(decoder.decode(messageOf(message)));
  CHECK_EQ(load<StateRecord>(decoder.records()).cipherKey, kWithheldKey);
}

TEST(malformed_dumps_are_refused_and_leave_no_record) {
  Tables tables = tablesOfOneKey();
  const auto whole =
      encoded(Records().add(gcmState(9)).attribute(XFRMA_MARK, bytesOf(xfrm_mark{1, 1})).bytes(), tables);
  for (std::size_t size = sizeof(nlmsghdr); size < whole.size(); size++) {
    Message message = messageOf(whole);
    message.payload = message.payload.first(size - sizeof(nlmsghdr));
    RecordDecoder decoder(tables, {.reqid = 0, .details = true});
    const bool decoded = decoder.decode(message);
    // A cut between two attributes is no fault that can be seen.
    CHECK(decoded || decoder.records().empty());
    CHECK(!decoded || size >= sizeof(nlmsghdr) + sizeof(xfrm_usersa_info));
  }
}

TEST(algorithm_whose_key_overruns_its_attribute_is_left_out) {
  Tables tables = tablesOfOneKey();
  auto bytes = encoded(Records().add(gcmState(9)).bytes(), tables);
  const std::size_t at = sizeof(nlmsghdr) + sizeof(xfrm_usersa_info) + sizeof(nlattr);
  auto head = load<xfrm_algo_aead>(bytes, at);
  for (const std::uint32_t bits : {std::uint32_t{(kKey.size() + 4) * 8 + 1}, 0x7fffffffU, 0xfffffff8U, 0xffffffffU}) {
    head.alg_key_len = bits;
    std::memcpy(bytes.data() + at, &head, sizeof head);
    RecordDecoder decoder(tables, {.reqid = 0, .details = false});
    CHECK(decoder.decode(messageOf(bytes)));
    CHECK_EQ(load<StateRecord>(decoder.records()).cipher, 0);
  }
}

TEST(algorithm_whose_name_does_not_end_is_cut_as_the_kernel_cuts_it) {
  Tables tables = tablesOfOneKey();
  auto bytes = encoded(Records().add(gcmState(9)).bytes(), tables);
  std::memset(bytes.data() + sizeof(nlmsghdr) + sizeof(xfrm_usersa_info) + sizeof(nlattr), 'a',
              sizeof xfrm_algo_aead::alg_name);
  RecordDecoder decoder(tables, {.reqid = 0, .details = false});
  CHECK(decoder.decode(messageOf(bytes)));
  const auto state = load<StateRecord>(decoder.records());
  CHECK_EQ(tables.algorithms()[state.cipherAlgorithm], std::string(sizeof xfrm_algo_aead::alg_name - 1, 'a'));
  const auto again = encoded(decoder.records(), tables);
  RecordDecoder second(tables, {.reqid = 0, .details = false});
  CHECK(second.decode(messageOf(again)));
  CHECK(second.records() == decoder.records());
}

TEST(answer_confirms_the_operation_that_made_it_and_no_other) {
  const Tables tables = tablesOfOneKey();
  // Output mark without a mask: the kernel says the mask that it took. Authentication without a truncation likewise.
  const std::uint32_t outputMark = 3;
  Records records;
  records.add(gcmState(9)).attribute(XFRMA_SET_MARK, bytesOf(outputMark));
  XfrmBatch batch(records.bytes(), tablesOfOneKey());
  CHECK(batch.parse());
  Records shown;
  shown.add(gcmState(9)).attribute(XFRMA_SET_MARK, bytesOf(outputMark));
  shown.attribute(XFRMA_SET_MARK_MASK, bytesOf(std::uint32_t{0xffffffff}));
  CHECK(batch.confirms(0, messageOf(encoded(shown.bytes(), tables))));
  CHECK(!batch.confirms(0, messageOf(encoded(Records().add(gcmState(9)).bytes(), tables))));
  StateRecord other = gcmState(9);
  other.icvBits = 128;
  Records another;
  another.add(other).attribute(XFRMA_SET_MARK, bytesOf(outputMark));
  CHECK(!batch.confirms(0, messageOf(encoded(another.bytes(), tables))));
}

TEST(answer_confirms_authentication_however_it_is_truncated_where_that_was_left_open) {
  Tables tables = tablesOfOneKey();
  const std::uint16_t sha = tables.addAlgorithm("hmac(sha256)");
  StateRecord asked = stateOf(Operation::kAddState, 9);
  asked.protocol = IPPROTO_AH;
  asked.authAlgorithm = sha;
  asked.authKey = 0;
  StateRecord shown = asked;
  shown.authTruncateBits = 96;
  const auto answer = encoded(Records().add(shown).bytes(), tables);
  const auto confirmed = [&](std::uint16_t bits) {
    asked.authTruncateBits = bits;
    const Records records = Records().add(asked);
    Tables own = tablesOfOneKey();
    own.addAlgorithm("hmac(sha256)");
    XfrmBatch batch(records.bytes(), std::move(own));
    CHECK(batch.parse());
    return batch.confirms(0, messageOf(answer));
  };
  CHECK(confirmed(0));
  CHECK(confirmed(96));
  CHECK(!confirmed(128));
}

TEST(answer_whose_keys_the_kernel_withholds_confirms_the_rest) {
  const Tables tables = tablesOfOneKey();
  Tables zeros;
  zeros.addKey(bytesOf(std::array<std::uint8_t, 20>{}));
  zeros.addAlgorithm(kGcm);
  StateRecord withheld = gcmState(9);
  withheld.salted = 0;
  StateRecord wanted = gcmState(9);
  wanted.salted = 1;
  const auto confirms = [&](const StateRecord& asked, const StateRecord& shown) {
    const Records records = Records().add(asked);
    XfrmBatch batch(records.bytes(), tablesOfOneKey());
    CHECK(batch.parse());
    return batch.confirms(0, messageOf(encoded(Records().add(shown).bytes(), zeros)));
  };
  CHECK(confirms(wanted, withheld));
  withheld.icvBits = 96;
  CHECK(!confirms(wanted, withheld));
}

TEST(deletion_is_confirmed_by_the_very_mark_only) {
  const Tables tables = tablesOfOneKey();
  const auto confirms = [&](const xfrm_mark& asked, const xfrm_mark& shown) {
    Records records;
    records.add(stateOf(Operation::kDeleteState, 9));
    if (asked.m != 0) records.attribute(XFRMA_MARK, bytesOf(asked));
    Records object;
    object.add(gcmState(9));
    if (shown.m != 0) object.attribute(XFRMA_MARK, bytesOf(shown));
    XfrmBatch batch(records.bytes(), {});
    CHECK(batch.parse());
    return batch.confirms(0, messageOf(encoded(object.bytes(), tables)));
  };
  CHECK(confirms({.v = 1, .m = 0xff}, {.v = 1, .m = 0xff}));
  CHECK(!confirms({.v = 1, .m = 0xff}, {.v = 1, .m = 0x0f}));
  CHECK(!confirms({.v = 0, .m = 0}, {.v = 0, .m = 0xff}));
  CHECK(confirms({}, {}));
}

TEST(identity_is_what_the_kernel_finds_an_object_by) {
  const Tables tables = tablesOfOneKey();
  const auto identity = [&](const auto& head, std::uint16_t type = 0, Bytes attribute = {}) {
    Records records;
    records.add(head);
    if (type != 0) records.attribute(type, attribute);
    Bytes rest = records.bytes();
    return identityOf(*takeRecord(rest, tables));
  };
  const xfrm_mark mark{.v = 1, .m = 0xff};
  const std::uint32_t interface = 5;
  const StateRecord state = gcmState(9);
  CHECK_EQ(identity(state), identity(stateOf(Operation::kDeleteState, 9)));
  CHECK(identity(state) != identity(state, XFRMA_MARK, bytesOf(mark)));
  CHECK_EQ(identity(state), identity(state, XFRMA_MARK, bytesOf(xfrm_mark{})));
  CHECK_EQ(identity(state), identity(state, XFRMA_IF_ID, bytesOf(interface)));
  CHECK(identity(state) != identity(gcmState(10)));
  PolicyRecord policy = policyOf(Operation::kAddPolicy, 1);
  const std::uint64_t added = identity(policy);
  CHECK(added != identity(policyOf(Operation::kAddPolicy, 2)));
  CHECK(added != identity(policy, XFRMA_MARK, bytesOf(mark)));
  CHECK(added != identity(policy, XFRMA_IF_ID, bytesOf(interface)));
  CHECK_EQ(added, identity(policyOf(Operation::kDeletePolicy, 1)));
  policy.priority = 7;
  policy.action = XFRM_POLICY_BLOCK;
  policy.operation = Operation::kUpdatePolicy;
  CHECK_EQ(added, identity(policy));
  policy.direction = XFRM_POLICY_IN;
  CHECK(added != identity(policy));
}

TEST(side_tables_give_equal_things_one_index) {
  Tables tables;
  const std::uint32_t first = tables.internKey(bytesOf(kKey));
  CHECK_EQ(tables.internKey(bytesOf(kKey)), first);
  CHECK(tables.internKey(bytesOf(kKey).first(8)) != first);
  tables.addKey(bytesOf(kKey));
  CHECK_EQ(tables.internKey(bytesOf(kKey)), first);
  const std::uint16_t name = tables.internAlgorithm(kGcm);
  CHECK_EQ(tables.internAlgorithm(kGcm), name);
  CHECK(tables.internAlgorithm("cbc(aes)") != name);
}

}  // namespace xfrmesh::test
