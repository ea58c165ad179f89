# Only for building against ROS 2 wheels from PyPI: given to CMake as CMAKE_PROJECT_INCLUDE.
# The Python libraries in those wheels export the include folders of the machine that built them (/opt/python/...),
# which CMake refuses because they do not exist here. At the end of the project, when all packages have been found,
# every such target gets this Python's folders instead.
function(use_this_pythons_headers)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    if(target MATCHES "__rosidl_generator_py$")
      set_target_properties(${target} PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Python3_INCLUDE_DIRS};${Python3_NumPy_INCLUDE_DIRS}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL use_this_pythons_headers)
