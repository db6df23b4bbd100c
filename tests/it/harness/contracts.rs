//! The tests' own contracts: their code, and their calls.

use alloy::sol;

pub const MOVER: &str = include_str!("../contracts/Mover.hex");
pub const TETHER: &str = include_str!("../contracts/Tether.hex");
pub const ELASTIC: &str = include_str!("../contracts/Elastic.hex");

sol! {
    interface Mover {
        function pay(address[] to, uint256 amount) external payable;
        function nest(address to, uint256 amount, uint256 depth) external payable;
        function pretend(address to, uint256 amount) external payable;
        function make(uint256 amount) external payable;
        function destroy(address to) external;
        function flash(address to, uint256 amount) external payable;
        function place(uint256 salt) external view returns (address);
        function makeAt(uint256 amount, uint256 salt) external payable;
        function flashAt(address to, uint256 amount, uint256 salt, uint256 wasted) external payable;
        function deposit() external payable;
        function withdraw(uint256 amount) external;
        function balanceOf(address who) external view returns (uint256);
    }

    interface Tether {
        function setFee(uint256 points) external;
        function transfer(address to, uint256 value) external;
        function issue(uint256 amount) external;
        function redeem(uint256 amount) external;
        function destroyBlackFunds(address user) external;
        function balanceOf(address who) external view returns (uint256);
    }

    interface Elastic {
        function mint(address to, uint256 value) external;
        function transfer(address to, uint256 value) external;
        function rebase(uint256 index, uint256 perMille) external;
        function balanceOf(address who) external view returns (uint256);
    }
}
