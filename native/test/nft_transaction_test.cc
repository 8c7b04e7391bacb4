#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "nft/transaction.h"
#include "test/check.h"
#include "test/nft_records.h"

namespace xfrmesh::test {
namespace {

constexpr std::uint8_t kInet = 1;

std::vector<std::byte> text(const std::string& value) {
  const Bytes bytes = std::as_bytes(std::span(value.c_str(), value.size() + 1));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> setOf(const std::string& table, const std::string& set) {
  std::vector<std::byte> attributes = attributeOf(NFTA_SET_ELEM_LIST_TABLE, text(table));
  appendBytes(attributes, attributeOf(NFTA_SET_ELEM_LIST_SET, text(set)));
  return attributes;
}

constexpr TransactionRecord plain(std::uint16_t type, std::uint16_t flags = 0) {
  return {.length = 0,
          .type = type,
          .flags = flags,
          .family = kInet,
          .kind = TransactionKind::kPlain,
          .keyBytes = 0,
          .attributeBytes = 0,
          .elementCount = 0,
          .keyAt = 0};
}

constexpr TransactionRecord keysOf(std::uint16_t type, std::uint16_t keyBytes) {
  auto head = plain(type, NLM_F_CREATE);
  head.kind = TransactionKind::kKeys;
  head.keyBytes = keyBytes;
  return head;
}

std::vector<std::byte> fromHex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

// A record of keys that is well formed, for tests that then spoil it.
std::vector<std::byte> goodKeys() {
  std::vector<std::byte> records;
  appendRecord(records, keysOf(NFT_MSG_NEWSETELEM, 3), setOf("t", "s"), bytesOfList({0, 16, 0, 0, 16, 1}));
  return records;
}

// An element with a key of four bytes, and with user data if there is any.
std::vector<std::byte> readyElement(std::uint32_t number, const std::optional<std::vector<std::byte>>& userdata) {
  const std::uint32_t wire = htonl(number);
  std::vector<std::byte> body =
      attributeOf(NFTA_SET_ELEM_KEY | NLA_F_NESTED, attributeOf(NFTA_DATA_VALUE, bytesOf(wire)));
  if (userdata) appendBytes(body, attributeOf(NFTA_SET_ELEM_USERDATA, *userdata));
  return attributeOf(NFTA_LIST_ELEM | NLA_F_NESTED, body);
}

std::vector<std::byte> readyElement(std::uint32_t number, std::size_t userdata) {
  return readyElement(number, std::vector<std::byte>(userdata));
}

// A comment of that many bytes with its NUL, or none.
CommentSlot slotOf(std::size_t length) {
  CommentSlot slot;
  slot.length = static_cast<std::uint8_t>(length);
  for (std::size_t i = 0; i + 1 < length; i++) slot.text[i] = 'c';
  return slot;
}

std::optional<std::vector<std::byte>> userdataOf(const CommentSlot& slot) {
  if (slot.length == 0) return std::nullopt;
  const Bytes bytes = bytesOf(slot).first(2 + std::size_t{slot.length});
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

// So many with keys of four bytes.
TransactionRecord alike(TransactionKind kind, std::uint16_t type, std::uint32_t count) {
  auto head = plain(type, NLM_F_CREATE);
  head.kind = kind;
  head.keyBytes = 4;
  head.elementCount = count;
  return head;
}

std::vector<std::byte> recordOfElements(const std::vector<std::byte>& all, std::uint32_t count) {
  auto head = plain(NFT_MSG_NEWSETELEM, NLM_F_CREATE);
  head.kind = TransactionKind::kElements;
  head.elementCount = count;
  std::vector<std::byte> records;
  appendRecord(records, head, setOf("t", "s"), all);
  return records;
}

template <typename T>
std::vector<std::byte> with(std::vector<std::byte> records, std::size_t offset, T value) {
  for (const std::byte byte : bytesOf(value)) records.at(offset++) = byte;
  return records;
}

}  // namespace

// test/data/nft.json, "add elements": what nft 1.0.6 sends for add element … { 0x001000, 0x001001 }.
TEST(elements_are_encoded_as_nft_does) {
  if constexpr (std::endian::native != std::endian::little) return;
  const auto captured = fromHex(
      "140000001000010001000000000000000000000a"
      "680000000c0a0104020000000000000001000000130001007866726d6573685f353834363464000013000200656e637279707465642d766e"
      "6973"
      "0000080004000000000124000380100001800c0001800700010000100000100002800c0001800700010000100100"
      "140000001100010003000000000000000000000a");
  const auto expected = readMessages(captured);
  CHECK(expected && expected->size() == 3);

  std::vector<std::byte> attributes = setOf("xfrmesh_58464d", "encrypted-vnis");
  appendBytes(attributes, attributeOf(NFTA_SET_ELEM_LIST_SET_ID, bytesOfList({0, 0, 0, 1})));
  std::vector<std::byte> records;
  appendRecord(records, keysOf(NFT_MSG_NEWSETELEM, 3), attributes, bytesOfList({0, 16, 0, 0, 16, 1}));
  const auto encoded = encodeTransaction(records, 1, 0);
  CHECK(encoded.has_value());
  const auto found = readMessages(encoded->bytes);
  CHECK(found && found->size() == 3);

  // nft numbers the elements in the place of NFTA_LIST_ELEM; the kernel does not look. And only we ask for an answer.
  constexpr std::size_t kMessage = 20;
  constexpr std::size_t kSecondElement = kMessage + 0x68 - 16;
  const std::uint16_t type = NFTA_LIST_ELEM | NLA_F_NESTED;
  const std::uint16_t flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
  const auto asWeDo = with(with(captured, kSecondElement + offsetof(nlattr, nla_type), type),
                           kMessage + offsetof(nlmsghdr, nlmsg_flags), flags);
  CHECK(encoded->bytes == asWeDo);
}

TEST(a_transaction_is_framed_and_numbered) {
  std::vector<std::byte> records;
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  appendRecord(records, plain(NFT_MSG_DELTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  appendRecord(records, plain(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND), {});
  const auto encoded = encodeTransaction(records, 0xfffffffe, 0);
  CHECK(encoded.has_value());
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == 5);
  CHECK(encoded->recordOf == (std::vector<std::uint32_t>{0, 1, 2}));

  const std::uint16_t types[] = {NFNL_MSG_BATCH_BEGIN, 0xa00, 0xa02, 0xa06, NFNL_MSG_BATCH_END};
  const std::uint16_t flags[] = {NLM_F_REQUEST, NLM_F_REQUEST, NLM_F_REQUEST,
                                 NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, NLM_F_REQUEST};
  for (std::uint32_t i = 0; i < 5; i++) {
    const auto& [header, generic, attributes] = (*messages)[i];
    const bool inner = i != 0 && i != 4;
    CHECK_EQ(header.nlmsg_type, types[i]);
    CHECK_EQ(header.nlmsg_flags, flags[i]);
    CHECK_EQ(header.nlmsg_seq, 0xfffffffe + i);
    CHECK_EQ(generic.nfgen_family, inner ? kInet : 0);
    CHECK_EQ(ntohs(generic.res_id), inner ? 0 : NFNL_SUBSYS_NFTABLES);
  }
  CHECK((*messages)[0].attributes.empty());
}

TEST(elements_that_are_alike_become_those_that_were_ready) {
  constexpr std::uint32_t kCount = 3000;
  std::vector<std::byte> expected;
  std::vector<std::byte> tail = readyElement(0, std::nullopt);
  std::vector<std::byte> comments;
  for (std::uint32_t i = 0; i < kCount; i++) {
    const auto slot = slotOf(i % (sizeof(CommentSlot::text) + 1));
    const std::uint32_t wire = htonl(i);
    appendBytes(tail, bytesOf(wire));
    appendBytes(comments, bytesOf(slot));
    appendBytes(expected, readyElement(i, userdataOf(slot)));
  }
  appendBytes(tail, comments);
  auto head = alike(TransactionKind::kAlike, NFT_MSG_NEWSETELEM, kCount);
  head.keyAt = 3 * sizeof(nlattr);
  std::vector<std::byte> records;
  appendRecord(records, head, setOf("t", "s"), tail);
  const auto encoded = encodeTransaction(records, 1, 0);
  CHECK(encoded && encoded->recordOf.size() > 3);
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == encoded->recordOf.size() + 2);
  std::vector<std::byte> sent;
  for (std::size_t i = 1; i + 1 < messages->size(); i++) {
    const auto& attributes = (*messages)[i].attributes;
    CHECK(attributes.size() == 3 && attributes[2].type == NFTA_SET_ELEM_LIST_ELEMENTS);
    CHECK_EQ(encoded->recordOf[i - 1], 0U);
    appendBytes(sent, attributes[2].payload);
  }
  CHECK(sent == expected);
}

TEST(rules_that_are_alike_are_a_change_each) {
  const auto attributes = attributeOf(NFTA_RULE_TABLE, text("t"));
  const std::size_t keyAt = attributes.size() + sizeof(nlattr);
  std::vector<std::byte> rule = attributes;
  appendBytes(rule, attributeOf(NFTA_RULE_EXPRESSIONS, std::vector<std::byte>(4)));
  std::vector<std::byte> tail = bytesOfList({1, 2, 3, 4, 5, 6, 0, 0});
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, sizeof(CommentSlot::text)})
    appendBytes(tail, bytesOf(slotOf(length)));
  auto head = alike(TransactionKind::kRules, NFT_MSG_NEWRULE, 3);
  head.keyBytes = 2;
  head.keyAt = static_cast<std::uint32_t>(keyAt);
  std::vector<std::byte> records;
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  appendRecord(records, head, rule, tail);
  appendRecord(records, plain(NFT_MSG_DELTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  const auto encoded = encodeTransaction(records, 1, 0, true);
  CHECK(encoded.has_value());
  CHECK(encoded->recordOf == (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
  CHECK(encoded->unechoed.size() == 1 && encoded->unechoed[0].first == 1 && encoded->unechoed[0].last == 3);
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == 7);
  for (std::size_t i = 0; i < 3; i++) {
    const auto& [header, generic, found] = (*messages)[2 + i];
    CHECK_EQ(header.nlmsg_type, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE);
    CHECK_EQ((header.nlmsg_flags & NLM_F_ECHO) != 0, i != 1);
    CHECK(found.size() == (i == 0 ? 2 : 3) && found[1].type == NFTA_RULE_EXPRESSIONS);
    CHECK(std::ranges::equal(found[1].payload.first(2), Bytes(tail).subspan(2 * i, 2)));
    if (i == 0) continue;
    const auto userdata = userdataOf(slotOf(i == 1 ? 1 : sizeof(CommentSlot::text)));
    CHECK(found[2].type == NFTA_RULE_USERDATA && std::ranges::equal(found[2].payload, *userdata));
  }

  // A key over a header, or past the end; comments too long, or missing; of something else than rules.
  const auto refused = [&](auto change) {
    auto bad = head;
    auto badTail = tail;
    change(bad, badTail);
    std::vector<std::byte> one;
    appendRecord(one, bad, rule, badTail);
    return !encodeTransaction(one, 1, 0);
  };
  CHECK(!refused([](auto&, auto&) {}));
  CHECK(refused([](auto& bad, auto&) { bad.keyAt -= 1; }));
  CHECK(refused([](auto& bad, auto&) { bad.keyAt += 3; }));
  CHECK(refused([](auto& bad, auto&) { bad.keyAt = 0; }));
  CHECK(refused([](auto& bad, auto&) { bad.keyAt = 0xffffffff; }));
  CHECK(refused([](auto& bad, auto&) { bad.keyBytes = 0; }));
  CHECK(refused([](auto& bad, auto&) { bad.elementCount = 4; }));
  CHECK(refused([](auto& bad, auto&) { bad.elementCount = 0; }));
  CHECK(refused([](auto& bad, auto&) { bad.type = NFT_MSG_NEWCHAIN; }));
  CHECK(refused([](auto&, auto& badTail) { badTail[8 + 1] = std::byte{131}; }));
  CHECK(refused([](auto&, auto& badTail) { badTail.resize(badTail.size() - sizeof(CommentSlot)); }));
}

TEST(comments_that_are_held_elsewhere_are_taken_in_their_order) {
  std::array slots{slotOf(0), slotOf(1), slotOf(2), slotOf(3), slotOf(4)};
  std::array<const CommentSlot*, slots.size()> held{};
  std::ranges::transform(slots, held.begin(), [](const CommentSlot& slot) { return &slot; });
  // The same with the comments in the records.
  const auto recordsOf = [&](bool elsewhere) {
    std::vector<std::byte> records;
    std::size_t next = 0;
    for (const std::uint32_t count : {2U, 3U}) {
      std::vector<std::byte> tail = readyElement(0, std::nullopt);
      for (std::uint32_t i = 0; i < count; i++) appendBytes(tail, bytesOf(i));
      for (std::uint32_t i = 0; i < count && !elsewhere; i++) appendBytes(tail, bytesOf(slots[next++]));
      auto head = alike(TransactionKind::kAlike, NFT_MSG_NEWSETELEM, count);
      head.keyAt = 3 * sizeof(nlattr);
      appendRecord(records, head, setOf("t", "s"), tail);
    }
    return records;
  };
  const auto here = encodeTransaction(recordsOf(false), 1, 0);
  const auto elsewhere = encodeTransaction(recordsOf(true), 1, 0, false, held);
  CHECK(here && elsewhere && here->bytes == elsewhere->bytes);
  CHECK(!encodeTransaction(recordsOf(true), 1, 0));
  CHECK(!encodeTransaction(recordsOf(true), 1, 0, false, HeldComments(held).first(4)));
  slots[4].length = 131;
  CHECK(!encodeTransaction(recordsOf(true), 1, 0, false, held));
}

TEST(a_generation_goes_into_the_begin_message) {
  std::vector<std::byte> records;
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  const auto encoded = encodeTransaction(records, 1, 0x01020304);
  CHECK(encoded.has_value());
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == 3);
  const auto& attributes = messages->front().attributes;
  CHECK(attributes.size() == 1 && attributes[0].type == NFNL_BATCH_GENID);
  const auto expected = bytesOfList({1, 2, 3, 4});
  CHECK(std::ranges::equal(attributes[0].payload, expected));
}

TEST(elements_are_split_before_an_attribute_overflows) {
  constexpr std::uint32_t kKeys = 10'000;
  constexpr std::size_t kMost = 4095;  // (65535 - 4) / 16
  std::vector<std::byte> keys;
  for (std::uint32_t vni = 0; vni < kKeys; vni++) {
    const std::uint32_t wire = htonl(vni);
    appendBytes(keys, bytesOf(wire).subspan(1));
  }
  std::vector<std::byte> records;
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  appendRecord(records, keysOf(NFT_MSG_NEWSETELEM, 3), setOf("t", "s"), keys);
  const auto encoded = encodeTransaction(records, 1, 0);
  CHECK(encoded.has_value());
  CHECK(encoded->recordOf == (std::vector<std::uint32_t>{0, 1, 1, 1}));
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == 6);

  std::uint32_t next = 0;
  for (std::size_t i = 2; i < 5; i++) {
    const auto& attributes = (*messages)[i].attributes;
    CHECK(attributes.size() == 3 && attributes[2].type == NFTA_SET_ELEM_LIST_ELEMENTS);
    const auto list = readAttributes(attributes[2].payload);
    CHECK(list && list->size() <= kMost && (i == 4 || list->size() == kMost));
    for (const auto& element : *list) {
      const auto key = readAttributes(element.payload);
      CHECK(key && key->size() == 1 && key->front().type == NFTA_SET_ELEM_KEY);
      const auto value = readAttributes(key->front().payload);
      CHECK(value && value->size() == 1 && value->front().type == NFTA_DATA_VALUE);
      const std::uint32_t wire = htonl(next++);
      CHECK(std::ranges::equal(value->front().payload, bytesOf(wire).subspan(1)));
    }
  }
  CHECK_EQ(next, kKeys);
}

TEST(elements_that_are_ready_are_split_between_them) {
  constexpr std::uint32_t kCount = 3000;
  std::vector<std::byte> all;
  for (std::uint32_t i = 0; i < kCount; i++) appendBytes(all, readyElement(i, i % 131));
  const auto encoded = encodeTransaction(recordOfElements(all, kCount), 1, 0);
  CHECK(encoded.has_value());
  CHECK(encoded->recordOf.size() > 3);
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages && messages->size() == encoded->recordOf.size() + 2);

  std::vector<std::byte> sent;
  for (std::size_t i = 1; i + 1 < messages->size(); i++) {
    const auto& attributes = (*messages)[i].attributes;
    CHECK(attributes.size() == 3 && attributes[2].type == NFTA_SET_ELEM_LIST_ELEMENTS);
    // The next one would not have fit: the lists are as long as can be.
    CHECK(i + 2 == messages->size() || attributes[2].whole.size() + readyElement(0, 130).size() > 0xffff);
    appendBytes(sent, attributes[2].payload);
  }
  CHECK(sent == all);
}

TEST(elements_that_are_not_what_was_counted_are_refused) {
  std::vector<std::byte> all = readyElement(1, 3);
  appendBytes(all, readyElement(2, 0));
  CHECK(encodeTransaction(recordOfElements(all, 2), 1, 0).has_value());
  CHECK(!encodeTransaction(recordOfElements(all, 0), 1, 0));
  CHECK(!encodeTransaction(recordOfElements(all, 1), 1, 0));
  CHECK(!encodeTransaction(recordOfElements(all, 3), 1, 0));
  // Another attribute in an element's place; one of no possible length; one too long for a list.
  CHECK(!encodeTransaction(recordOfElements(attributeOf(NFTA_LIST_ELEM + 1, {}), 1), 1, 0));
  CHECK(!encodeTransaction(recordOfElements(with(all, 0, std::uint16_t{0xfff0}), 2), 1, 0));
  CHECK(!encodeTransaction(recordOfElements(attributeOf(NFTA_LIST_ELEM, std::vector<std::byte>(65528)), 1), 1, 0));
  const auto longest = attributeOf(NFTA_LIST_ELEM, std::vector<std::byte>(65524));
  CHECK(encodeTransaction(recordOfElements(longest, 1), 1, 0).has_value());
}

TEST(what_makes_something_is_to_be_echoed) {
  std::vector<std::byte> records;
  const std::uint16_t types[] = {NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE,    NFT_MSG_NEWSET,
                                 NFT_MSG_NEWOBJ,   NFT_MSG_DELRULE,  NFT_MSG_NEWSETELEM, NFT_MSG_DELTABLE};
  for (const auto type : types) appendRecord(records, plain(type), attributeOf(1, text("t")));
  for (const bool echo : {false, true}) {
    const auto encoded = encodeTransaction(records, 1, 0, echo);
    CHECK(encoded.has_value());
    const auto messages = readMessages(encoded->bytes);
    CHECK(messages && messages->size() == std::size(types) + 2);
    for (std::size_t i = 0; i < messages->size(); i++) {
      const bool echoed = ((*messages)[i].header.nlmsg_flags & NLM_F_ECHO) != 0;
      CHECK(echoed == (echo && i >= 1 && i <= 5));
    }
  }
}

TEST(of_rules_in_a_row_the_first_and_the_last_are_echoed) {
  std::vector<std::byte> records;
  const auto rule = [&](const char* table, std::uint8_t family) {
    auto head = plain(NFT_MSG_NEWRULE);
    head.family = family;
    appendRecord(records, head, attributeOf(NFTA_RULE_TABLE, text(table)));
  };
  // Messages are numbered from 1, after BATCH_BEGIN; a record is one less.
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));  // 1
  for (int i = 0; i < 4; i++) rule("t", NFPROTO_INET);                                      // 2 to 5
  for (int i = 0; i < 3; i++) rule("u", NFPROTO_INET);                                      // 6 to 8
  for (int i = 0; i < 3; i++) rule("u", NFPROTO_IPV4);                                      // 9 to 11
  appendRecord(records, plain(NFT_MSG_DELRULE), attributeOf(NFTA_RULE_TABLE, text("t")));   // 12
  for (int i = 0; i < 2; i++) rule("t", NFPROTO_INET);                                      // 13 and 14
  const auto encoded = encodeTransaction(records, 1, 0, true);
  CHECK(encoded.has_value());
  const auto messages = readMessages(encoded->bytes);
  CHECK(messages.has_value());
  std::vector<std::size_t> echoed;
  for (std::size_t i = 0; i < messages->size(); i++)
    if (((*messages)[i].header.nlmsg_flags & NLM_F_ECHO) != 0) echoed.push_back(i);
  CHECK(echoed == (std::vector<std::size_t>{1, 2, 5, 6, 8, 9, 11, 13, 14}));
  CHECK_EQ(encoded->unechoed.size(), 3U);
  CHECK_EQ(encoded->unechoed[0].first, 1U);
  CHECK_EQ(encoded->unechoed[0].last, 4U);
  CHECK_EQ(encoded->unechoed[2].first, 8U);
  CHECK_EQ(encoded->unechoed[2].last, 10U);
  CHECK(encodeTransaction(records, 1, 0)->unechoed.empty());
}

TEST(an_element_is_found_by_where_it_is_in_its_message) {
  constexpr std::size_t kKeys = 10'000;
  constexpr std::uint32_t kMost = 4095;  // in one message
  std::vector<std::byte> records;
  appendRecord(records, plain(NFT_MSG_NEWTABLE), attributeOf(NFTA_TABLE_NAME, text("t")));
  appendRecord(records, keysOf(NFT_MSG_NEWSETELEM, 3), setOf("t", "s"), std::vector<std::byte>(kKeys * 3));
  std::vector<std::byte> ready = readyElement(1, 100);
  appendBytes(ready, readyElement(2, 3));
  appendBytes(records, recordOfElements(ready, 2));
  const auto encoded = encodeTransaction(records, 1, 0);
  CHECK(encoded.has_value());
  CHECK(encoded->recordOf == (std::vector<std::uint32_t>{0, 1, 1, 1, 2}));

  // A message's header, the two names, and the list's own header.
  const auto list = static_cast<std::uint32_t>(sizeof(nlmsghdr) + sizeof(nfgenmsg) + setOf("t", "s").size() + 4);
  CHECK(elementAt(*encoded, 1, list) == 0U);
  CHECK(elementAt(*encoded, 1, list + 15) == 0U);
  CHECK(elementAt(*encoded, 1, list + 16) == 1U);
  CHECK(elementAt(*encoded, 2, list) == kMost);
  CHECK(elementAt(*encoded, 3, list + 16 * 7 + 3) == 2 * kMost + 7);
  CHECK(elementAt(*encoded, 4, list) == 0U);
  CHECK(elementAt(*encoded, 4, list + static_cast<std::uint32_t>(readyElement(1, 100).size())) == 1U);
  // Of none: the kernel named nothing, the set's name, what is past the end, a message without, a message too many.
  CHECK(!elementAt(*encoded, 1, 0));
  CHECK(!elementAt(*encoded, 1, list - 5));
  CHECK(!elementAt(*encoded, 1, list + 16 * kMost));
  CHECK(!elementAt(*encoded, 0, list));
  CHECK(!elementAt(*encoded, 5, list));
}

TEST(malformed_records_are_refused_whole) {
  const auto good = goodKeys();
  CHECK(encodeTransaction(good, 1, 0).has_value());
  CHECK(!encodeTransaction({}, 1, 0));
  for (std::size_t size = 1; size < good.size(); size++) CHECK(!encodeTransaction(Bytes(good).first(size), 1, 0));

  using Record = TransactionRecord;
  CHECK(!encodeTransaction(with(good, offsetof(Record, length), std::uint32_t{0}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, length), std::uint32_t{0xfffffff8}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, type), std::uint16_t{0x0a00}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, flags), std::uint16_t{NLM_F_ACK}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, kind), std::uint8_t{0}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, kind), std::uint8_t{2}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, kind), std::uint8_t{3}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, keyBytes), std::uint16_t{0}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, keyBytes), std::uint16_t{65}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, attributeBytes), std::uint32_t{0xffffffff}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, attributeBytes), std::uint32_t{13}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, elementCount), std::uint32_t{0}), 1, 0));
  CHECK(!encodeTransaction(with(good, offsetof(Record, elementCount), std::uint32_t{0x80000000}), 1, 0));
  constexpr std::size_t kFirstAttribute = sizeof(Record);
  CHECK(!encodeTransaction(with(good, kFirstAttribute, std::uint16_t{3}), 1, 0));
  CHECK(!encodeTransaction(with(good, kFirstAttribute, std::uint16_t{0xffff}), 1, 0));

  // A good record first does not help a bad one after it.
  auto both = good;
  appendBytes(both, with(good, offsetof(Record, kind), std::uint8_t{9}));
  CHECK(!encodeTransaction(both, 1, 0));
}

}  // namespace xfrmesh::test
