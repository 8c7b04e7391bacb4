#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "masquerade/attachments.h"
#include "masquerade/sha512.h"
#include "test/check.h"

namespace xfrmesh::test {
namespace {

std::string hexOf(Bytes bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (const std::byte byte : bytes) {
    hex += kDigits[std::to_integer<std::size_t>(byte >> 4)];
    hex += kDigits[std::to_integer<std::size_t>(byte & std::byte{15})];
  }
  return hex;
}

std::string digest(const std::string& text) {
  std::string hex;
  for (const std::uint64_t word : sha512(std::as_bytes(std::span(text)))) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      const auto byte = static_cast<std::byte>(word >> shift);
      hex += hexOf(bytesOf(byte));
    }
  }
  return hex;
}

struct Named {
  std::string network, interface, container;
  std::vector<std::string> addresses;
};

// The attachments in these texts; nullopt if they are refused.
std::optional<Attachments> taken(const std::string& texts, const std::vector<std::uint32_t>& counts,
                                 bool namesChecked = false) {
  Attachments all;
  if (!takeAttachments({.texts = std::as_bytes(std::span(texts)), .counts = counts, .namesChecked = namesChecked}, all))
    return std::nullopt;
  return all;
}

std::optional<Attachments> taken(const std::vector<Named>& named, bool namesChecked = false) {
  std::string texts;
  std::vector<std::uint32_t> counts;
  for (const auto& one : named) {
    for (const auto& text : {one.network, one.interface, one.container}) texts += text + '\0';
    for (const auto& text : one.addresses) texts += text + '\0';
    counts.push_back(static_cast<std::uint32_t>(one.addresses.size()));
  }
  return taken(texts, counts, namesChecked);
}

// One with these addresses.
std::optional<Attachments> at(const std::vector<std::string>& addresses) {
  return taken({{"net", "eth0", "id", addresses}});
}

std::string commentOf(const CommentSlot& slot) {
  CHECK_EQ(slot.type, 0);
  CHECK(slot.length > 0 && slot.length <= kLongestComment + 1 && slot.text[slot.length - 1] == '\0');
  return {slot.text, slot.length - std::size_t{1}};
}

}  // namespace

// FIPS 180-4's own examples, and the lengths at which the padding takes one block more (by sha512sum).
TEST(sha512_is_the_standards) {
  CHECK_EQ(digest("abc"),
           "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
           "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
  CHECK_EQ(digest("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnop"
                  "qrstnopqrstu"),
           "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
           "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909");
  CHECK_EQ(digest("").substr(0, 32), "cf83e1357eefb8bdf1542850d66d8007");
  CHECK_EQ(digest(std::string(111, 'x')).substr(0, 32), "9a2a120825c2319867758ec277924f6f");
  CHECK_EQ(digest(std::string(112, 'x')).substr(0, 32), "a3722b515ef40c910f2419f6e0da8ca5");
  CHECK_EQ(digest(std::string(127, 'x')).substr(0, 32), "1d5a8893e7b7ed83d485d26f88cfb846");
  CHECK_EQ(digest(std::string(128, 'x')).substr(0, 32), "e2e22f8422b54b06e35c3ea30a383d1d");
  CHECK_EQ(digest(std::string(239, 'x')).substr(0, 32), "805c40517b44cef414a06c632b4ee9c2");
  CHECK_EQ(digest(std::string(240, 'x')).substr(0, 32), "3e05caa7e0fddab685e6052bd902c316");
  CHECK_EQ(digest(std::string(300, 'x')).substr(0, 32), "0dc240ae43b18eeacef4d7d8d64b945a");
}

// As many as go at once, one more and one less; of one block, and of more.
TEST(sha512_of_many_is_that_of_each) {
  for (std::size_t count = 0; count <= 33; count++) {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < count; i++) texts.emplace_back((i * 37 + count) % 250, static_cast<char>('a' + i % 26));
    std::vector<Bytes> messages;
    messages.reserve(count);
    for (const std::string& text : texts) messages.push_back(std::as_bytes(std::span(text)));
    std::vector<std::uint64_t> firsts(count);
    sha512Firsts(messages, firsts);
    for (std::size_t i = 0; i < count; i++) CHECK_EQ(firsts[i], sha512(messages[i])[0]);
  }
}

// What the plugins' own tests expect.
TEST(owners_and_comments_are_the_plugins) {
  const auto found = taken({{"unit-test", "eth0", "one", {}},
                            {"unit-test", "eth0", "two", {}},
                            {"alternate", "net1", "three", {}},
                            {"unit-test", "eth0", "four", {}}});
  CHECK(found && found->owners.size() == 4 && found->comments.size() == 4);
  const std::string expected[] = {"6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one",
                                  "6fd94d501e58f0aa-d750b2c8f0f25d5f, net: unit-test, if: eth0, id: two",
                                  "82783ef24bdc7036-acb19d111858e348, net: alternate, if: net1, id: three",
                                  "6fd94d501e58f0aa-e766de567ef6c543, net: unit-test, if: eth0, id: four"};
  for (std::size_t i = 0; i < 4; i++) {
    CHECK_EQ(commentOf(found->comments[i]), expected[i]);
    CHECK_EQ(hexOf(found->owners[i]), expected[i].substr(0, 16) + expected[i].substr(17, 16));
  }
}

TEST(comments_bear_no_quotes_and_are_cut) {
  const auto quoted = taken({{"a \"b\"", "eth0", "c\"", {}}});
  CHECK(quoted && commentOf(quoted->comments[0]).substr(33) == ", net: a b, if: eth0, id: c");
  const std::string id(64, 'f');
  const auto cut = taken({{"a-network-of-a-rather-long-name", "eth0", id, {}}});
  CHECK(cut.has_value());
  const std::string whole = ", net: a-network-of-a-rather-long-name, if: eth0, id: " + id;
  CHECK_EQ(commentOf(cut->comments[0]).substr(33), whole.substr(0, 95));
  const auto longest = taken({{std::string(254, '"') + "n", "eth0", "\"" + id, {}}});
  CHECK(longest && commentOf(longest->comments[0]).substr(33) == ", net: n, if: eth0, id: " + id);
}

TEST(names_that_are_not_plainly_good_are_refused_unless_checked) {
  CHECK(taken(std::vector<Named>{}).has_value());
  const std::string longest(255, 'n');
  CHECK(taken({{longest, "123456789012345", longest, {}}}).has_value());
  CHECK(taken({{"a b", "a.b", "a:/ b", {}}}).has_value());
  for (const std::string& name :
       {std::string(), longest + 'n', std::string("a\tb"), std::string("a\x7f"), std::string("\xc3\xbc")}) {
    CHECK(!taken({{name, "eth0", "id", {}}}));
    CHECK(!taken({{"net", "eth0", name, {}}}));
    CHECK(!taken({{"net", name, "id", {}}}));
  }
  for (const char* interface : {"1234567890123456", "eth 0", "a/b", "a:b", ".", ".."})
    CHECK(!taken({{"net", interface, "id", {}}}));
  const auto checked = taken({{"\xc3\xbc", "eth0", "\xc3\xbc", {}}}, true);
  CHECK(checked && commentOf(checked->comments[0]).substr(33) == ", net: \xc3\xbc, if: eth0, id: \xc3\xbc");
}

TEST(texts_that_do_not_add_up_are_refused) {
  const std::string good(
      "net\0eth0\0id\0"
      "10.0.0.1/8\0",
      23);
  CHECK(taken(good, {1}).has_value());
  for (std::size_t size = 0; size < good.size(); size++) CHECK(!taken(good.substr(0, size), {1}));
  CHECK(!taken(good, {}));
  CHECK(!taken(good, {0}));
  CHECK(!taken(good, {2}));
  CHECK(!taken(good, {0xffffffff}));
  // A NUL within a text makes two of it.
  CHECK(!taken({{std::string("n\0t", 3), "eth0", "id", {"10.0.0.1/8"}}}));
  CHECK(!taken({{"net",
                 "eth0",
                 std::string("id\0"
                             "10.0.0.2/8",
                             13),
                 {"10.0.0.1/8"}}}));
}

TEST(addresses_are_on_their_subnets) {
  const auto found = at(
      {"192.168.1.2/24", "10.1.255.3/18", "::ffff:10.0.0.1/8", "2001:DB8::2/45", "0.0.0.0/0", "::/0", "fd00::1/128"});
  CHECK(found && found->ends == std::vector<std::uint32_t>{7});
  const auto told = [&](std::size_t i) {
    const auto& [address, subnet] = found->mappings[i];
    return hexOf(address) + ' ' + std::to_string(subnet.family) + ' ' + hexOf(subnet.first) + '/' +
           std::to_string(subnet.prefix);
  };
  const std::string mapped = "00000000000000000000ffff";
  const std::string rest(24, '0');
  CHECK_EQ(told(0), mapped + "c0a80102 2 c0a80100" + rest + "/24");
  CHECK_EQ(told(1), mapped + "0a01ff03 2 0a01c000" + rest + "/18");
  CHECK_EQ(told(2), mapped + "0a000001 2 0a000000" + rest + "/8");
  CHECK_EQ(told(3), "20010db8000000000000000000000002 10 20010db8000000000000000000000000/45");
  CHECK_EQ(told(4), mapped + "00000000 2 00000000" + rest + "/0");
  CHECK_EQ(told(5), std::string(32, '0') + " 10 " + std::string(32, '0') + "/0");
  CHECK_EQ(told(6), "fd000000000000000000000000000001 10 fd000000000000000000000000000001/128");
}

TEST(addresses_that_are_none_are_refused) {
  for (const char* text : {"",
                           "/24",
                           "192.168.1.2",
                           "192.168.1.2/",
                           "192.168.1.2/33",
                           "192.168.1.2/024",
                           "192.168.1.2/-1",
                           "192.168.1.2/1e1",
                           "192.168.1.2/24/24",
                           "192.168.1.2/4294967296",
                           "192.168.1/24",
                           "192.168.1.256/24",
                           "192.168.01.2/24",
                           " 192.168.1.2/24",
                           "::ffff:10.0.0.1/120",
                           "2001:db8::1/129",
                           "fe80::1%eth0/64",
                           "0000:0000:0000:0000:0000:0000:0000:0000:0000/8",
                           "224.0.0.1/24",
                           "239.255.255.255/24",
                           "ff02::1/64",
                           "::ffff:224.0.0.1/24"})
    CHECK(!at({text}));
  CHECK(at({"240.0.0.1/24", "223.255.255.255/24", "fe80::1/64"}).has_value());
  // One that the attachment has already, in whichever writing.
  CHECK(!at({"10.0.0.1/24", "10.0.0.2/24", "10.0.0.1/16"}));
  CHECK(!at({"10.0.0.1/24", "::ffff:a00:1/24"}));
  CHECK(taken({{"net", "eth0", "a", {"10.0.0.1/24"}}, {"net", "eth0", "b", {"10.0.0.1/24"}}}).has_value());
}

}  // namespace xfrmesh::test
