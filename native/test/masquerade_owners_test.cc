#include <cstdint>
#include <string>

#include "masquerade/owners.h"
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

std::optional<Owners> owners(const std::string& names) { return ownersOf(std::as_bytes(std::span(names))); }

// Two texts for each attachment.
std::string named(const std::string& network, const std::string& name) { return network + '\0' + name + '\0'; }

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

// What the plugins' own tests expect.
TEST(owners_and_comments_are_the_plugins) {
  const auto found = owners(named("unit-test", "eth0:one") + named("unit-test", "eth0:two") +
                            named("alternate", "net1:three") + named("unit-test", "eth0:four"));
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
  const auto quoted = owners(named("a \"b\"", "eth0:c\""));
  CHECK(quoted && commentOf(quoted->comments[0]).substr(33) == ", net: a b, if: eth0, id: c");
  const std::string id(64, 'f');
  const auto cut = owners(named("a-network-of-a-rather-long-name", "eth0:" + id));
  CHECK(cut.has_value());
  const std::string whole = ", net: a-network-of-a-rather-long-name, if: eth0, id: " + id;
  CHECK_EQ(commentOf(cut->comments[0]).substr(33), whole.substr(0, 95));
  const auto longest = owners(named(std::string(255, '"') + "n", "eth0:\"" + id));
  CHECK(longest && commentOf(longest->comments[0]).substr(33) == ", net: n, if: eth0, id: " + id);
}

TEST(names_that_are_none_are_refused) {
  CHECK(owners("") && owners("")->owners.empty());
  for (const std::string& names : {std::string("net"), std::string("net\0", 4), std::string("net\0eth0:id", 11),
                                   named("net", "eth0"), named("", "eth0:id"), named("net", "eth0:id") + "net"})
    CHECK(!owners(names));
}

}  // namespace xfrmesh::test
